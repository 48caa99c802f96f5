"""Competitions: their files, submissions, scores and daily limits."""

import threading
from datetime import UTC, datetime
from pathlib import Path

from tests.fake_kaggle.kernels import Kernels
from tests.fake_kaggle.replies import Json, Refusal, Reply, files_of, iso, page_of
from tests.fake_kaggle.scoring import judge
from tests.fake_kaggle.state import Competition, Submission

RULES = "You must accept this competition's rules before you'll be able to download files."


class Competitions(Kernels):
    """The competition service; a submission may be a file or the output of a kernel."""

    def add_competition(
        self,
        slug: str,
        files: dict[str, bytes | Path],
        sample: str | None = None,
        solution: str | None = None,
        daily_limit: int = 5,
        accepted: bool = True,
        beta: float = 2.0,
        average: str = "samples",
        code: bool = False,
    ) -> None:
        """Add or replace a competition. `files` has the listed names, which may contain folders, as keys;
        `sample` is the listed name of the sample submission, a CSV or a zip of one; `solution` is a CSV text
        of id, tags and Usage (Public or Private); with `code`, only kernels can submit."""
        kept = self._keep(files)
        with self._lock:
            self.competitions[slug] = Competition(
                slug, kept, sample, solution, daily_limit, accepted, beta, average, code, datetime.now(UTC)
            )

    @property
    def submissions(self) -> list[Json]:
        """Return all submissions, oldest first, as the client sees them, with competition, user and path."""
        with self._lock:
            return [
                {**self._view(s), "competition": s.competition, "user": s.user, "path": s.path}
                for s in self._submissions
            ]

    def _competition(self, request: Json, *, rules: bool = False) -> Competition:
        slug = request.get("competitionName", "").rstrip("/").split("/")[-1]
        if slug not in self.competitions:
            raise Refusal(404, f"Competition {slug} was not found")
        if rules and not self.competitions[slug].accepted:
            raise Refusal(403, RULES)
        return self.competitions[slug]

    def _competitions_list_competitions(self, request: Json, _user: str) -> Json:
        found = [c for slug, c in self.competitions.items() if request.get("search", "") in slug]
        page, token = page_of(found if request.get("page", 1) == 1 else [], request)
        return {"competitions": [self._about(c) for c in page], "nextPageToken": token}

    def _competitions_get_competition(self, request: Json, _user: str) -> Json:
        return self._about(self._competition(request))

    def _about(self, competition: Competition) -> Json:
        return {
            "id": 1,
            "ref": f"https://www.kaggle.com/competitions/{competition.slug}",
            "url": f"https://www.kaggle.com/competitions/{competition.slug}",
            "title": competition.slug.replace("-", " ").title(),
            "userHasEntered": competition.accepted,
            "maxDailySubmissions": competition.daily_limit,
            "isKernelsSubmissionsOnly": competition.code,
            "enabledDate": iso(competition.created),
            "deadline": "2030-01-01T00:00:00Z",
        }

    def _competitions_list_data_files(self, request: Json, _user: str) -> Json:
        competition = self._competition(request)
        files, token = files_of(competition.files, competition.created, request)
        return {"files": files, "nextPageToken": token}

    def _competitions_download_data_file(self, request: Json, _user: str) -> Reply:
        competition = self._competition(request, rules=True)
        name = request.get("fileName", "")
        if name not in competition.files:
            raise Refusal(404, f"File {name} was not found in {competition.slug}")
        return self._hand_out(competition.files[name], Path(name).name)

    def _competitions_download_data_files(self, request: Json, _user: str) -> Reply:
        competition = self._competition(request, rules=True)
        stamp = f"{competition.slug}-{int(competition.created.timestamp() * 1e6)}"
        return self._hand_out(self._zip(stamp, competition.files), f"{competition.slug}.zip")

    def _competitions_start_submission_upload(self, request: Json, _user: str) -> Json:
        self._competition(request, rules=True)
        return self._start_upload(request.get("fileName", "submission.csv"), request.get("contentLength", 0))

    def _competitions_create_submission(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        if competition.code:
            raise Refusal(400, "This competition only accepts Submissions from Notebooks")
        blob = self._uploaded(request.get("blobFileTokens", ""))
        description = request.get("submissionDescription", "")
        return self._submit(competition, user, blob.path, blob.name, description)

    def _competitions_create_code_submission(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        kernel = self._kernel(request.get("kernelOwner", user), request["kernelSlug"])
        number = request.get("kernelVersion", len(kernel.runs))
        run = next((r for r in kernel.runs if r.number == number), None)
        name = request.get("fileName", "submission.csv")
        if run is None or run.status != "COMPLETE" or name not in run.files:
            raise Refusal(400, f"Version {number} of the notebook has no output {name}")
        description = request.get("submissionDescription", "")
        return self._submit(competition, user, run.files[name], name, description)

    def _submit(self, competition: Competition, user: str, path: Path, name: str, description: str) -> Json:
        title = competition.slug.replace("-", " ").title()
        with self._lock:
            if self._today(competition, user) >= competition.daily_limit:
                if self.lying_limit:
                    return {"message": f"Successfully submitted to {title}", "ref": 0}
                raise Refusal(
                    400,
                    "Submission not allowed: Your team has used its daily Submission allowance "
                    f"({competition.daily_limit}) today, please try again tomorrow UTC (in a few hours).",
                )
            ref = 40_000_000 + self._new_id()
            submission = Submission(ref, competition.slug, user, name, description, path, datetime.now(UTC))
            self._submissions.append(submission)
        threading.Thread(target=judge, args=(competition, submission), daemon=True).start()
        return {"message": f"Successfully submitted to {title}", "ref": ref}

    def _today(self, competition: Competition, user: str) -> int:
        """Return the number of today's submissions that did not fail."""
        today = datetime.now(UTC).date()
        mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        return sum(s.date.date() == today and self._view(s)["status"] != "ERROR" for s in mine)

    def _view(self, submission: Submission) -> Json:
        seconds = (datetime.now(UTC) - submission.date).total_seconds()
        view = {
            "ref": submission.ref,
            "fileName": submission.name,
            "date": iso(submission.date),
            "description": submission.description,
            "totalBytes": submission.path.stat().st_size,
            "submittedBy": submission.user,
            "submittedByRef": submission.user,
            "teamName": submission.user,
            "url": f"https://www.kaggle.com/submissions/{submission.ref}",
            "status": "PENDING",
            "publicScore": "",
            "privateScore": "",
            "errorDescription": "",
        }
        if seconds < self.score_after or not submission.judged.is_set():
            return view
        if submission.error:
            return {**view, "status": "ERROR", "errorDescription": submission.error}
        scores = (f"{s:.5f}" if s is not None else "" for s in (submission.public, submission.private))
        return {**view, "status": "COMPLETE", **dict(zip(("publicScore", "privateScore"), scores))}

    def _competitions_get_submission(self, request: Json, user: str) -> Json:
        with self._lock:
            found = next((s for s in self._submissions if s.ref == request.get("ref")), None)
        if found is None or found.user != user:
            raise Refusal(404, f"Submission {request.get('ref')} was not found")
        return self._view(found)

    def _competitions_list_submissions(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        with self._lock:
            mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        page, token = page_of(mine[::-1], request)
        return {"submissions": [self._view(s) for s in page], "nextPageToken": token}

    def _competitions_get_submission_limits(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        with self._lock:
            today = self._today(competition, user)
            mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        left = max(0, competition.daily_limit - today)
        return {"numToday": today, "numTotal": len(mine), "numAllowedNow": left, "limitedByTotal": False}
