"""Queries on customers and products; whoever calls decides when to commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from shop.models import Customer, Order, OrderLine, Product, Tag


class CustomerRepository:
    """Customers, by a session that belongs to somebody else."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, email: str, name: str, **values: object) -> Customer:
        customer = Customer(email=email, name=name, joined=datetime(2026, 5, 4, 12, 30), **values)
        self.session.add(customer)
        await self.session.flush()
        return customer

    async def by_email(self, email: str) -> Customer | None:
        return await self.session.scalar(select(Customer).where(Customer.email == email))

    async def with_orders(self, email: str) -> Customer:
        query = (
            select(Customer)
            .where(Customer.email == email)
            .options(
                selectinload(Customer.orders)
                .selectinload(Order.lines)
                .selectinload(OrderLine.product)
            )
            .execution_options(populate_existing=True)
        )
        return (await self.session.scalars(query)).one()

    async def count(self) -> int:
        return await self.session.scalar(select(func.count()).select_from(Customer)) or 0

    async def deactivate_poorer_than(self, limit: Decimal) -> int:
        done = await self.session.execute(
            update(Customer).where(Customer.balance < limit).values(active=False)
        )
        return done.rowcount

    async def remove_inactive(self) -> int:
        done = await self.session.execute(delete(Customer).where(Customer.active.is_(False)))
        return done.rowcount


class ProductRepository:
    """Products and their tags."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, sku: str, price: str, stock: int = 10, tags: Sequence[str] = ()) -> Product:
        product = Product(sku=sku, title=sku.title(), price=Decimal(price), stock=stock)
        product.tags = [await self._tag(word) for word in tags]
        self.session.add(product)
        await self.session.flush()
        return product

    async def tagged(self, word: str) -> Sequence[Product]:
        query = select(Product).join(Product.tags).where(Tag.word == word).order_by(Product.sku)
        return (await self.session.scalars(query)).all()

    async def _tag(self, word: str) -> Tag:
        found = await self.session.scalar(select(Tag).where(Tag.word == word))
        return found or Tag(word=word)
