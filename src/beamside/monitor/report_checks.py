"""What had to be settled before items could flow, with what was found and the pictures that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from beamside.flow.checks import Account
from beamside.monitor.report_pictures import LARGE, Embedded, PictureStore


@dataclass(frozen=True)
class CheckView:
    """What a check has found, with its pictures."""

    account: Account
    pictures: tuple[Embedded, ...]


def check_views(found: Sequence[Account], store: PictureStore) -> list[CheckView]:
    """Return what the report shows of each."""
    wanted = [(caption, path, LARGE) for account in found for caption, path in account.pictures]
    embedded = iter(store.embed(wanted))
    views = []
    for account in found:
        pictures = [next(embedded) for _ in account.pictures]
        views.append(CheckView(account, tuple(picture for picture in pictures if picture is not None)))
    return views
