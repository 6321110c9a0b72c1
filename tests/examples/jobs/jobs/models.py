from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Job(Base):
    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    done_by: Mapped[str | None] = mapped_column(String(50))


class Budget(Base):
    """How much the workers may still spend together."""

    __tablename__ = "budgets"
    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    left: Mapped[int]
