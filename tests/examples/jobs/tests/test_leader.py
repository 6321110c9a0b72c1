from __future__ import annotations

import pytest
from jobs.leader import leadership


@pytest.mark.asyncdb(exclude="sqlite")
async def test_there_is_one_leader():
    async with leadership() as mine:
        assert mine
        async with leadership() as yours:
            assert not yours
    async with leadership() as yours:
        assert yours
