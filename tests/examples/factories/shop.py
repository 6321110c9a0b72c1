"""The code under test: customers, their orders, and a report."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    cents: Mapped[int]
    customer: Mapped[Customer] = relationship(back_populates="orders")


async def turnover(session: AsyncSession) -> dict[str, int]:
    """The cents of all orders by the customer's address."""
    query = (
        select(Customer.email, func.sum(Order.cents)).join(Customer.orders).group_by(Customer.email)
    )
    return {email: int(cents) for email, cents in await session.execute(query)}
