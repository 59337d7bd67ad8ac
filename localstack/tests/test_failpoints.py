"""No failpoint of the Rust sources is forgotten by `./dev chaos`, and none is named that is not there."""

from __future__ import annotations

from firn_local.failpoints import (
    OF_A_NEW_TABLE,
    OF_A_RAISE,
    OF_A_RESTART,
    OF_THE_COPY,
    OF_THE_STREAM,
    in_sources,
    name_of,
)
from firn_local.paths import ROOT


def test_every_failpoint_of_the_sources_is_reached_by_chaos() -> None:
    defined, _hit = in_sources(ROOT)
    chosen = (*OF_THE_COPY, *OF_A_RESTART, *OF_A_RAISE, *OF_A_NEW_TABLE, *OF_THE_STREAM)
    known = {name_of(key) for key in chosen}
    assert known == defined


def test_every_failpoint_that_is_defined_stands_somewhere_and_the_other_way_round() -> None:
    defined, hit = in_sources(ROOT)
    assert hit == defined
