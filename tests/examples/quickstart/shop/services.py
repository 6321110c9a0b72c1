"""What the shop does; every function here ends its own transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from shop.models import Customer, Order, OrderLine, Product
from shop.repository import CustomerRepository

Sessions = async_sessionmaker[AsyncSession]


class ShopError(Exception):
    """The base of what the shop refuses."""


class EmailTakenError(ShopError):
    """The address belongs to another customer."""


class PaymentError(ShopError):
    """There is not enough money."""


class StockError(ShopError):
    """There is not enough of a product."""


async def sign_up(session: AsyncSession, email: str, name: str) -> Customer:
    """Make a customer, and commit.

    Raises:
        EmailTakenError: The database knows the address; the session is usable.
    """
    try:
        customer = await CustomerRepository(session).add(email, name)
        await session.commit()
    except IntegrityError:
        await session.rollback()
        raise EmailTakenError(email) from None
    return customer


async def transfer(session: AsyncSession, giver: str, taker: str, amount: Decimal) -> None:
    """Move money between two customers, all of it or nothing.

    Raises:
        PaymentError: The giver has too little, or there is no such taker.
    """
    customers = CustomerRepository(session)
    try:
        source = await customers.by_email(giver)
        if source is None or source.balance < amount:
            raise PaymentError(f"{giver} cannot pay {amount}")
        source.balance -= amount
        await session.flush()  # the money is gone from here on
        target = await customers.by_email(taker)
        if target is None:
            raise PaymentError(f"nobody is called {taker}")
        target.balance += amount
        await session.commit()
    except PaymentError:
        await session.rollback()
        raise


async def place_order(sessions: Sessions, email: str, basket: Mapping[str, int]) -> int:
    """Take a basket of ``{sku: quantity}`` out of the stock; returns the order's id.

    Raises:
        StockError: A product is short; nothing has changed.
    """
    async with sessions() as session, session.begin():
        customer = await CustomerRepository(session).by_email(email)
        assert customer is not None
        order = Order(customer_id=customer.id, placed=datetime(2026, 6, 1, 9, 0))
        session.add(order)
        await session.flush()
        for sku, quantity in basket.items():
            query = select(Product).where(Product.sku == sku).with_for_update()
            product = (await session.scalars(query)).one()
            if product.stock < quantity:
                raise StockError(f"{product.stock} of {sku} left")
            product.stock -= quantity
            customer.balance -= product.price * quantity
            session.add(
                OrderLine(
                    order_id=order.id,
                    product_id=product.id,
                    quantity=quantity,
                    price=product.price,
                )
            )
            await session.flush()
        return order.id


async def import_products(
    session: AsyncSession, rows: Iterable[tuple[str, str]]
) -> tuple[int, list[str]]:
    """Add ``(sku, price)`` rows, each in a savepoint; returns how many, and what was known."""
    added, known = 0, []
    for sku, price in rows:
        try:
            async with session.begin_nested():
                session.add(Product(sku=sku, title=sku, price=Decimal(price)))
        except IntegrityError:
            known.append(sku)
        else:
            added += 1
    await session.commit()
    return added, known


async def export_products(sessions: Sessions) -> AsyncIterator[str]:
    """Lines of a price list, while the rows arrive."""
    async with sessions() as session:
        result = await session.stream(select(Product.sku, Product.price).order_by(Product.sku))
        async for sku, price in result:
            yield f"{sku};{price}"


async def restock(sessions: Sessions, amounts: Mapping[str, int]) -> None:
    """Add to the stock of several products at once, one session for each."""

    async def one(sku: str, amount: int) -> None:
        async with sessions() as session, session.begin():
            product = (await session.scalars(select(Product).where(Product.sku == sku))).one()
            product.stock += amount

    await asyncio.gather(*(one(sku, amount) for sku, amount in amounts.items()))


async def turnover(engine: AsyncEngine) -> Decimal:
    """The worth of everything sold, from the tables alone."""
    worth = func.sum(OrderLine.quantity * OrderLine.price)
    async with engine.connect() as connection:
        return Decimal(await connection.scalar(select(worth)) or 0)
