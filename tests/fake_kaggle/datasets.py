"""Datasets: create, add versions, list and download."""

import time
from datetime import UTC, datetime
from pathlib import Path

from tests.fake_kaggle.replies import Json, Refusal, Reply, files_of, iso
from tests.fake_kaggle.state import Dataset, DatasetVersion
from tests.fake_kaggle.storage import Storage


class Datasets(Storage):
    """The dataset service."""

    def add_dataset(self, ref: str, files: dict[str, bytes | Path], title: str | None = None) -> None:
        """Add a public dataset "owner/slug" or a new version of it, ready at once."""
        kept = self._keep(files)
        with self._lock:
            if ref not in self.datasets:
                name = title or ref.split("/")[1]
                self.datasets[ref] = Dataset(ref, self._new_id(), name, "CC0-1.0", False)
            self._add_version(self.datasets[ref], kept, "", time.time())

    def _dataset(self, request: Json) -> Dataset:
        ref = f"{request.get('ownerSlug')}/{request.get('datasetSlug')}"
        if ref not in self.datasets:
            raise Refusal(self.unknown_dataset, f"Permission 'datasets.get' was denied for {ref}")
        return self.datasets[ref]

    def _version(self, request: Json) -> DatasetVersion:
        dataset = self._dataset(request)
        number = request.get("datasetVersionNumber")
        found = dataset.current
        if number:
            found = next((v for v in dataset.versions if v.number == number), None)
        if found is None or found.ready_at > time.time():
            raise Refusal(404, f"{dataset.ref} has no version {number or ''} that is ready")
        return found

    def _datasets_list_datasets(self, request: Json, user: str) -> Json:
        found = [d for ref, d in self.datasets.items() if request.get("search", "") in ref]
        if "MY" in request.get("group", ""):
            found = [d for d in found if d.ref.startswith(f"{user}/")]
        return {"datasets": [self._describe(d) for d in found if request.get("page", 1) == 1]}

    def _datasets_get_dataset(self, request: Json, _user: str) -> Json:
        return self._describe(self._dataset(request))

    def _describe(self, dataset: Dataset) -> Json:
        owner = dataset.ref.split("/")[0]
        return {
            "id": dataset.id,
            "ref": dataset.ref,
            "title": dataset.title,
            "ownerName": owner,
            "ownerRef": owner,
            "url": f"https://www.kaggle.com/datasets/{dataset.ref}",
            "isPrivate": dataset.private,
            "licenseName": dataset.license,
            "totalBytes": sum(p.stat().st_size for p in dataset.files.values()),
            "lastUpdated": iso(dataset.versions[-1].created),
            "currentVersionNumber": dataset.current.number if dataset.current else None,
            "versions": [
                {"versionNumber": v.number, "versionNotes": v.notes, "creationDate": iso(v.created)}
                for v in dataset.versions
            ],
        }

    def _datasets_get_dataset_metadata(self, request: Json, _user: str) -> Json:
        dataset = self._dataset(request)
        owner, slug = dataset.ref.split("/")
        info = {
            "datasetId": dataset.id,
            "datasetSlug": slug,
            "ownerUser": owner,
            "title": dataset.title,
            "isPrivate": dataset.private,
            "licenses": [{"name": dataset.license}],
        }
        return {"info": info}

    def _datasets_get_dataset_status(self, request: Json, _user: str) -> Json:
        return {"status": "READY" if self._dataset(request).status == "ready" else "BLOBS_RECEIVED"}

    def _datasets_list_dataset_files(self, request: Json, _user: str) -> Json:
        version = self._version(request)
        rows, token = files_of(version.files, version.created, request)
        files = [{**row, "fileType": Path(row["name"]).suffix} for row in rows]
        return {"datasetFiles": files, "nextPageToken": token}

    def _datasets_download_dataset(self, request: Json, _user: str) -> Reply:
        version = self._version(request)
        if name := request.get("fileName"):
            if name not in version.files:
                raise Refusal(404, f"File {name} was not found in {request['datasetSlug']}")
            return self._hand_out(version.files[name], Path(name).name)
        stamp = f"{request['ownerSlug']}-{request['datasetSlug']}-v{version.number}"
        return self._hand_out(self._zip(stamp, version.files), f"{request['datasetSlug']}.zip")

    def _datasets_create_dataset(self, request: Json, user: str) -> Json:
        ref = f"{request.get('ownerSlug')}/{request.get('slug')}"
        if not ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'datasets.create' was denied for {ref}")
        files = self._new_files(request)
        with self._lock:
            if ref in self.datasets:
                return {"status": "error", "error": f"The dataset {ref} exists already", "ref": ref}
            title, licence = request.get("title", ref), request.get("licenseName", "unknown")
            dataset = Dataset(ref, self._new_id(), title, licence, bool(request.get("isPrivate")))
            return self._new_version(dataset, files, "Initial release")

    def _datasets_create_dataset_version(self, request: Json, user: str) -> Json:
        dataset = self._dataset(request)
        if not dataset.ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'datasets.update' was denied for {dataset.ref}")
        body = request.get("body", {})
        files = self._new_files(body)
        with self._lock:
            if body.get("deleteOldVersions"):
                dataset.versions[:-1] = []
            return self._new_version(dataset, files, body.get("versionNotes", ""))

    def _datasets_create_dataset_version_by_id(self, request: Json, user: str) -> Json:
        found = next((d for d in self.datasets.values() if d.id == request.get("id")), None)
        if found is None:
            raise Refusal(self.unknown_dataset, "Permission 'datasets.update' was denied")
        owner, slug = found.ref.split("/")
        return self._datasets_create_dataset_version(
            {**request, "ownerSlug": owner, "datasetSlug": slug}, user
        )

    def _new_version(self, dataset: Dataset, files: dict[str, Path], notes: str) -> Json:
        answer = {"ref": dataset.ref, "url": f"https://www.kaggle.com/datasets/{dataset.ref}"}
        if not files:
            return {**answer, "status": "error", "error": "The dataset needs at least one file"}
        self.datasets[dataset.ref] = dataset
        self._add_version(dataset, files, notes, time.time() + self.ready_after)
        return {**answer, "status": "ok"}

    def _add_version(self, dataset: Dataset, files: dict[str, Path], notes: str, ready_at: float) -> None:
        number = dataset.versions[-1].number + 1 if dataset.versions else 1
        dataset.versions.append(DatasetVersion(number, files, ready_at, notes, datetime.now(UTC)))

    def _new_files(self, body: Json, prefix: str = "") -> dict[str, Path]:
        """Return the uploaded files of a request; archives become folders, as on Kaggle."""
        files: dict[str, Path] = {}
        for blob in [self._uploaded(f.get("token", "")) for f in body.get("files", [])]:
            files |= self._unpacked(prefix + blob.name, blob.path)
        for folder in body.get("directories", []):
            files |= self._new_files(folder, f"{prefix}{folder['name']}/")
        return files
