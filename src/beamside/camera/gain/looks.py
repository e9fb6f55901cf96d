"""Looking again whether movies bear out how the gain reference is used: which movies, and what becomes of what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beamside.acquisition.gain_doubt import Doubt, doubt_sentence
from beamside.camera.gain.case import Case, look_due, signature_of, way_of, with_some
from beamside.formats.orientation import Orientation

MOST_LOOKED_AT = 12
"""So many movies at most are looked at again: the newest."""

FEWEST_FOLLOWED, MOST_FOLLOWED = 4, 24
"""When some movies are not as others, the next are looked at when so many have come; and so often while a person has not answered."""

FIRST_MOVIES = 4
"""When the newest movies contradict a decision, so many of the first are asked whether it was wrong from the beginning."""


@dataclass(frozen=True)
class Look:
    """Movies to be looked at, the first ones of the session, and those between the last look and this one."""

    movies: list[str]
    first: list[str]
    between: list[str]


def next_look(case: Case, *, closing: bool) -> Look | None:
    """Return what is to be looked at now, and note in the case that it was; None when nothing is due.

    The newest movies are, at intervals over the whole session. Once some are not as others, each is, also those that were passed over. When the
    session is `closing`, or a person has just answered, those that are left are, however few.
    """
    record, doubt = case.record, case.doubt
    if record.get("evidence", {}).get("kind", "flat") in ("flat", "unsure"):
        return None
    mixed = bool(record.get("mixed"))
    if doubt is not None and not mixed and ("scope" not in doubt or case.followed >= MOST_FOLLOWED):
        return None
    voters, each = case.voters(), doubt is not None or mixed
    number, looked = len(voters), case.looked
    case.looked_before, case.unseen_before, between = looked, case.unseen, list[str]()
    if each and case.unseen:
        newest, case.unseen = case.unseen[:MOST_LOOKED_AT], case.unseen[MOST_LOOKED_AT:]
    elif each and number > looked and (number >= looked + FEWEST_FOLLOWED or closing or case.answered):
        newest = voters[looked : looked + MOST_LOOKED_AT]
        case.looked = looked + len(newest)
    elif not each and number >= look_due(looked):
        newest = voters[max(number - MOST_LOOKED_AT, looked if looked >= MOST_LOOKED_AT else 0) :]
        case.looked, between = number, voters[looked : number - len(newest)]
        case.unseen = [*case.unseen, *between]
    else:
        case.answered = False
        return None
    case.followed = case.followed + 1 if doubt is not None else 0
    return Look(newest, voters[:FIRST_MOVIES], between)


def after_look(
    case: Case, outcome: Mapping[str, Any], *, reference: str, processed: int, command: str
) -> dict[str, Any] | None:
    """Return the case's record after a look, or None when it stays as it is.

    What movies say against the decision is asked. What a person has agreed to for movies that are found so holds for these, too.

    Parameters
    ----------
    case : the case
    outcome : what the worker has found
    reference, processed, command : for the question: the reference's name, how many movies were given on, and what a person types to answer
    """
    found, evidence, record = outcome["doubt"], outcome["evidence"], case.record
    if case.state != "decided":
        return None
    if found is None:
        return None if case.doubt is not None or record.get("mixed") else _borne_out(record, evidence)
    agreed, answers = record.get("mixed", ()), record.get("answered", ())
    movies = [movie for movie in found["movies"] if case.way(movie) == way_of(record)]
    scope = "some" if case.doubt is not None or agreed else found["scope"]
    signature = signature_of(scope, way_of(found))
    if movies and signature in agreed:
        return with_some(record, way_of(found), movies)
    asked = {**found, "scope": scope, "signature": signature, "evidence": evidence}
    question = _question(case, asked, movies) if movies and signature not in answers else None
    if question is None:
        return None
    rotate, flip, use = way_of(record)
    sentence = doubt_sentence(
        Doubt(
            Orientation(question["rotate"], question["flip"]),
            question["use"],
            question["scope"],
            tuple(question["movies"]),
            question["shown"],
        ),
        Orientation(rotate, flip),  # type: ignore[arg-type]
        use,  # type: ignore[arg-type]
        reference=reference,
        processed=processed,
        looked=question["looked"],
        command=command,
    )
    return {**record, "doubt": {**question, "sentence": sentence}}


def _borne_out(record: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a decision that was looked at again, with the evidence of more movies: an eye sees the pattern better in more counts."""
    better = evidence.get("picture") and evidence["movies"] > record["evidence"]["movies"]
    return {**record, "evidence": evidence} if better else dict(record)


def _question(case: Case, found: Mapping[str, Any], movies: list[str]) -> dict[str, Any] | None:
    """Return the question about what was found, together with the one that is open; None when that is about something else: one at a time."""
    looked, open_ = int(found["looked"]), case.doubt
    if open_ is not None:
        if open_.get("scope") != "some" or open_["signature"] != found["signature"]:
            return None
        movies, looked = [*open_["movies"], *movies], looked + int(open_["looked"])
    order = {
        movie: number for number, movie in enumerate(case.movies)
    }  # those of earlier sessions may not have come up yet
    movies = sorted(movies, key=lambda movie: order.get(movie, len(order)))
    before = list(case.movies)[: order.get(movies[0], len(order))]
    return {**found, "movies": movies, "looked": looked, "before": before}
