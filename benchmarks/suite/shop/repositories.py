"""Queries."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Generic, TypeVar

from sqlalchemy import case, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from shop.models import (
    Cart,
    CartLine,
    Category,
    Coupon,
    Customer,
    Order,
    OrderLine,
    Price,
    Product,
    Review,
    Row,
    Stock,
    Tag,
    Variant,
)

T = TypeVar("T", bound=Row)


class NotFound(Exception):
    pass


class Repository(Generic[T]):
    """What every table needs."""

    model: type[T]

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def get(self, number: int) -> T:
        found = await self.session.get(self.model, number)
        if found is None:
            raise NotFound(f"no {self.model.__tablename__} {number}")
        return found

    async def add(self, row: T) -> T:
        self.session.add(row)
        await self.session.flush()
        return row

    async def count(self) -> int:
        return (await self.session.scalars(select(func.count()).select_from(self.model))).one()

    async def page(self, number: int, size: int) -> Sequence[T]:
        query = select(self.model).order_by(self.model.id).limit(size).offset((number - 1) * size)
        return (await self.session.scalars(query)).all()


class Customers(Repository[Customer]):
    model = Customer

    async def by_email(self, email: str) -> Customer | None:
        return await self.session.scalar(select(Customer).where(Customer.email == email))

    async def with_orders(self, at_least: int) -> Sequence[Customer]:
        query = (
            select(Customer)
            .join(Order)
            .group_by(Customer.id)
            .having(func.count(Order.id) >= at_least)
            .order_by(Customer.id)
        )
        return (await self.session.scalars(query)).all()


class Products(Repository[Product]):
    model = Product

    async def search(self, text: str = "", state: str = "", order: str = "name") -> list[Product]:
        query = select(Product).order_by(getattr(Product, order), Product.id)
        if text:
            query = query.where(Product.name.ilike(f"%{text}%"))
        if state:
            query = query.where(Product.state == state)
        return [*(await self.session.scalars(query)).all()]

    async def tagged(self, *names: str) -> list[Product]:
        """Those that have all of these tags."""
        query = (
            select(Product)
            .join(Product.tags)
            .where(Tag.name.in_(names))
            .group_by(Product.id)
            .having(func.count(Tag.id) == len(names))
            .order_by(Product.id)
            .options(selectinload(Product.tags), selectinload(Product.variants))
        )
        return [*(await self.session.scalars(query)).all()]

    async def stars(self, product: Product) -> float | None:
        found = await self.session.scalar(
            select(func.avg(Review.stars)).where(Review.product_id == product.id)
        )
        return None if found is None else float(found)

    async def best_sellers(self, most: int) -> list[tuple[str, int]]:
        sold = func.sum(OrderLine.quantity)
        query = (
            select(Product.sku, sold)
            .join(Variant, Variant.product_id == Product.id)
            .join(OrderLine, OrderLine.variant_id == Variant.id)
            .group_by(Product.id)
            .order_by(sold.desc(), Product.id)
            .limit(most)
        )
        return [(sku, int(number)) for sku, number in (await self.session.execute(query)).all()]


class Categories(Repository[Category]):
    model = Category

    async def below(self, root: Category) -> list[str]:
        """The names of all categories under *root*, however deep."""
        tree = select(Category.id).where(Category.parent_id == root.id).cte(recursive=True)
        tree = tree.union_all(
            select(Category.id).join_from(Category, tree, Category.parent_id == tree.c.id)
        )
        query = (
            select(Category.name).where(Category.id.in_(select(tree.c.id))).order_by(Category.name)
        )
        return [*(await self.session.scalars(query)).all()]


class Prices(Repository[Price]):
    model = Price

    async def of(self, variant_id: int, quantity: int) -> Decimal:
        """The price of one, when so many are bought."""
        query = (
            select(Price.amount)
            .where(Price.variant_id == variant_id, Price.from_quantity <= quantity)
            .order_by(Price.from_quantity.desc())
            .limit(1)
        )
        found = await self.session.scalar(query)
        if found is None:
            raise NotFound(f"no price for variant {variant_id}")
        return found


class Stocks(Repository[Stock]):
    model = Stock

    async def free(self, variant_id: int) -> int:
        query = select(func.coalesce(func.sum(Stock.quantity - Stock.reserved), 0))
        return int(await self.session.scalar(query.where(Stock.variant_id == variant_id)) or 0)

    async def of(self, variant_id: int) -> Sequence[Stock]:
        query = select(Stock).where(Stock.variant_id == variant_id).order_by(Stock.id)
        return (await self.session.scalars(query)).all()


class Carts(Repository[Cart]):
    model = Cart

    async def full(self, number: int) -> Cart:
        """With its lines, their variants and products."""
        query = (
            select(Cart)
            .where(Cart.id == number)
            .options(
                selectinload(Cart.lines)
                .selectinload(CartLine.variant)
                .selectinload(Variant.product)
            )
            .execution_options(populate_existing=True)
        )
        found = await self.session.scalar(query)
        if found is None:
            raise NotFound(f"no cart {number}")
        return found


class Coupons(Repository[Coupon]):
    model = Coupon

    async def by_code(self, code: str) -> Coupon:
        found = await self.session.scalar(select(Coupon).where(Coupon.code == code))
        if found is None:
            raise NotFound(f"no coupon {code}")
        return found


class Orders(Repository[Order]):
    model = Order

    async def full(self, number: int) -> Order:
        """With its lines and payments."""
        query = (
            select(Order)
            .where(Order.id == number)
            .options(selectinload(Order.lines), selectinload(Order.payments))
            .execution_options(populate_existing=True)
        )
        found = await self.session.scalar(query)
        if found is None:
            raise NotFound(f"no order {number}")
        return found

    async def in_state(self, state: str) -> Sequence[Order]:
        query = select(Order).where(Order.state == state).order_by(Order.id)
        return (await self.session.scalars(query)).all()

    async def turnover(self) -> dict[str, Decimal]:
        """By state."""
        paid = case((Order.state == "cancelled", 0), else_=Order.total)
        query = select(Order.state, func.sum(paid)).group_by(Order.state)
        return {state: Decimal(total) for state, total in (await self.session.execute(query)).all()}
