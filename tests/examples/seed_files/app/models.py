from __future__ import annotations

from sqlalchemy import ForeignKey, String, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Country(Base):
    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[object] = mapped_column(Uuid, primary_key=True)
    country: Mapped[str] = mapped_column(ForeignKey("countries.code"))
