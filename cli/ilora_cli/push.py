"""`ilora push`: an artefact, with its card and licences, to the Hugging Face Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ilora_cli.console import console, print_json, quiet_bars

if TYPE_CHECKING:
    from ilora_core.licences import Chain
    from ilora_core.publishing import Ready

__all__ = ["push", "tell_licences"]


def push(
    folder: Annotated[str, typer.Argument(help="What `ilora fit` wrote: one adapter, or the folder of several.")],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the new repository private.")] = False,
    revision: Annotated[str, typer.Option(help="Branch to commit to, made if it is not there. Default: main")] = "",
    message: Annotated[str, typer.Option(help="Commit message.")] = "",
    data_licence: Annotated[
        str, typer.Option(help="Licence of your own pictures (fitted with --pairs or --pictures), e.g. CC-BY-4.0.")
    ] = "",
    preview: Annotated[bool, typer.Option(help="Send preview.png, which shows held-out pictures.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing: no connection, no login.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Publish a trained adapter on the Hugging Face Hub.

    Only the adapter's own files are sent, without paths of this machine. Log in with `hf auth login` or HF_TOKEN.
    """
    from ilora_core.hub_places import HubPlace

    place = HubPlace.parse(f"hf://{repo_id.removeprefix('hf://')}{f'@{revision}' if revision else ''}")
    _check(place, repo_id)
    from ilora_core.publishing import prepared

    with prepared(folder, place.repository, revision=revision, data_licence=data_licence, preview=preview) as ready:
        sent: dict[str, str] = {}
        if not json:
            _tell(ready)
        if not dry_run:
            from ilora_core import hub_repository

            quiet_bars(json)
            sent = hub_repository.push(ready, place.repository, private=private, revision=revision, message=message)
        if json:
            print_json(_as_json(ready, place.repository, revision, sent, dry_run=dry_run))
        elif dry_run:
            console().print("Nothing was sent (--dry-run).", soft_wrap=True)
        else:
            console().print(f"Published: {sent['url']}", markup=False, soft_wrap=True)
            console().print(f"Use it with --adapter {place}", markup=False, soft_wrap=True)


def tell_licences(chain: Chain) -> None:
    """The chain, what has to be passed on, and what a person should look at."""
    out = console()
    out.print("licences")
    for link in chain.links:
        out.print(f"  {link.part} {link.name}: {link.text} [{link.kind}]", markup=False, soft_wrap=True)
    out.print(f"  commercial use: {chain.commercial}", markup=False, soft_wrap=True)
    for term in chain.terms:
        out.print(f"  pass on: {term}", markup=False, soft_wrap=True)
    for flag in chain.flags:
        out.print(f"  look at: {flag}", markup=False, soft_wrap=True, style="yellow")


def _check(place: Any, repo_id: str) -> None:
    from ilora_core.errors import ConfigError

    if place.folder or "@" in repo_id:
        raise ConfigError(f"{repo_id!r}: push to a repository, OWNER/NAME; its branch goes into --revision.")


def _tell(ready: Ready) -> None:
    out = console()
    for upload in ready.files:
        out.print(f"{upload.sha256}  {upload.size:>12,}  {upload.path}", markup=False, soft_wrap=True)
    total = sum(upload.size for upload in ready.files)
    out.print(f"{len(ready.files)} files, {total:,} bytes", markup=False, soft_wrap=True)
    tell_licences(ready.chain)


def _as_json(ready: Ready, repository: str, revision: str, sent: dict[str, str], *, dry_run: bool) -> dict[str, Any]:
    files = [{"path": one.path, "bytes": one.size, "sha256": one.sha256} for one in ready.files]
    told = {"repository": repository, "revision": revision or "main", "dry_run": dry_run}
    return {**told, "files": files, "licences": ready.chain.to_json(), **sent}
