"""Sign-in with Google or Microsoft; with no provider configured everyone is one guest."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from assistant.settings import Settings

router = APIRouter(prefix="/auth")

SESSION_SECONDS = 14 * 24 * 3600
MICROSOFT_LOGIN = "https://login.microsoftonline.com"
METADATA_PATH = ".well-known/openid-configuration"


class User(BaseModel):
    id: str
    name: str
    email: str = ""


class WhoAmI(BaseModel):
    user: User | None
    providers: list[str]


GUEST = User(id="guest", name="Guest")


def install_auth(app: FastAPI, settings: Settings) -> None:
    """Adds the routes, and what sign-in needs only when a provider is on."""
    app.include_router(router)
    if not settings.providers:
        return
    # Imported here: an open instance starts faster without them.
    from authlib.integrations.starlette_client import OAuth
    from starlette.middleware.sessions import SessionMiddleware

    oauth = OAuth()
    for provider in settings.providers:
        oauth.register(provider, **client_options(provider, settings))
    app.state.oauth = oauth
    app.add_middleware(
        SessionMiddleware,
        secret_key=settings.secret_key,
        session_cookie="assistant_session",
        max_age=SESSION_SECONDS,
        same_site="lax",
        https_only=settings.is_production,
    )


def client_options(provider: str, settings: Settings) -> dict:
    if provider == "google":
        client_id, client_secret = settings.google_client_id, settings.google_client_secret
        issuer = "https://accounts.google.com"
    else:
        client_id, client_secret = settings.microsoft_client_id, settings.microsoft_client_secret
        issuer = f"{MICROSOFT_LOGIN}/{settings.microsoft_tenant}/v2.0"
    return {
        "client_id": client_id,
        "client_secret": client_secret,
        "server_metadata_url": f"{issuer}/{METADATA_PATH}",
        "client_kwargs": {"scope": "openid email profile", "code_challenge_method": "S256"},
    }


def signed_in_user(request: Request) -> User | None:
    if not request.app.state.settings.providers:
        return GUEST
    stored = request.session.get("user")
    return User.model_validate(stored) if stored else None


def required_user(request: Request) -> User:
    user = signed_in_user(request)
    if user is None:
        raise HTTPException(401, "sign in first")
    return user


CurrentUser = Annotated[User, Depends(required_user)]


@router.get("/me")
async def me(request: Request) -> WhoAmI:
    return WhoAmI(user=signed_in_user(request), providers=request.app.state.settings.providers)


@router.post("/logout", status_code=204)
async def logout(request: Request) -> Response:
    if request.app.state.settings.providers:
        request.session.clear()
    return Response(status_code=204)


@router.get("/{provider}/login")
async def login(provider: str, request: Request) -> Response:
    client = client_of(provider, request)
    return await reach_provider(client.authorize_redirect(request, callback_url(provider, request)))


@router.get("/{provider}/callback")
async def callback(provider: str, request: Request) -> Response:
    client = client_of(provider, request)
    options = microsoft_claims(client.client_id) if provider == "microsoft" else None
    token = await reach_provider(client.authorize_access_token(request, claims_options=options))
    claims = token.get("userinfo")
    if not claims:
        raise HTTPException(401, f"{provider} sent no identity")
    email = claims.get("email", "")
    user = User(id=f"{provider}:{claims['sub']}", name=claims.get("name") or email, email=email)
    request.session.clear()
    request.session["user"] = user.model_dump()
    return RedirectResponse("/", status_code=303)


def client_of(provider: str, request: Request):
    if provider not in request.app.state.settings.providers:
        raise HTTPException(404, f"sign-in with {provider} is not configured")
    return request.app.state.oauth.create_client(provider)


def callback_url(provider: str, request: Request) -> str:
    backend_url = request.app.state.settings.backend_url
    if backend_url:
        return f"{backend_url.rstrip('/')}/auth/{provider}/callback"
    return str(request.url_for("callback", provider=provider))


def microsoft_claims(client_id: str) -> dict:
    # Under "common" each token names its user's own tenant as the issuer, so the
    # issuer cannot be compared with the one in the provider's metadata.
    return {
        "iss": {"essential": True, "validate": is_microsoft_issuer},
        "aud": {"essential": True, "value": client_id},
    }


def is_microsoft_issuer(claims: dict, issuer: str) -> bool:
    return issuer == f"{MICROSOFT_LOGIN}/{claims.get('tid')}/v2.0"


async def reach_provider(step):
    """Awaits one step of the sign-in and turns its failures into answers."""
    import httpx
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError

    try:
        return await step
    except (AuthlibBaseError, JoseError) as error:
        raise HTTPException(401, f"sign-in failed: {error}") from error
    except httpx.HTTPError as error:
        raise HTTPException(502, "the sign-in provider cannot be reached") from error
