"""The API: authenticate a request and call the method of its service."""

import base64
import contextlib
import re

from tests.fake_kaggle.competitions import Competitions
from tests.fake_kaggle.datasets import Datasets
from tests.fake_kaggle.failures import Failures
from tests.fake_kaggle.replies import Json, Refusal, Reply, json_reply


class Api(Competitions, Datasets, Failures):
    """All services behind one entry point."""

    def user_of(self, authorization: str | None) -> str | None:
        """Return the user of an Authorization header; None if it is missing or wrong."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme == "Bearer":
            return self.tokens.get(value)
        if scheme == "Basic":
            with contextlib.suppress(ValueError):
                user, _, key = base64.b64decode(value).decode().partition(":")
                return user if key and self.users.get(user) == key else None
        return None

    def call(self, service: str, method: str, request: Json, user: str | None) -> Reply:
        """Answer one call of the API."""
        if user is None and method != "IntrospectToken":
            raise Refusal(401, "Unauthenticated: the credentials are missing or wrong")
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()
        action = getattr(self, f"_{service.split('.')[0]}_{snake}", None)
        if action is None:
            raise Refusal(404, f"{service}/{method} is not part of this server")
        with self._lock:
            self.calls.append((method, request))
        answer = action(request, user)
        return answer if isinstance(answer, Reply) else json_reply(answer)

    def _security_introspect_token(self, request: Json, _user: str | None) -> Json:
        user = self.tokens.get(request.get("token", ""))
        return {"active": True, "username": user, "userId": 1} if user else {"active": False}
