"""Rows for tests: each factory adds what its row needs, with values that no other row has."""

import itertools
from decimal import Decimal

from shop.models import (
    Address,
    Cart,
    CartLine,
    Category,
    Country,
    Coupon,
    Customer,
    Order,
    OrderLine,
    Payment,
    Price,
    PriceList,
    Product,
    Review,
    Stock,
    Supplier,
    Variant,
    Warehouse,
)
from sqlalchemy.ext.asyncio import AsyncSession


class Factory:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self._numbers = itertools.count(1)
        self._country: Country | None = None
        self._supplier: Supplier | None = None
        self._prices: PriceList | None = None

    async def add(self, *rows):
        self.session.add_all(rows)
        await self.session.flush()
        return rows[0]

    async def country(self) -> Country:
        if self._country is None:
            self._country = await self.add(Country(code="nl", name="Netherlands", vat=Decimal(21)))
        return self._country

    async def customer(self, **values) -> Customer:
        number = next(self._numbers)
        return await self.add(
            Customer(**{"email": f"c{number}@example.org", "name": f"Customer {number}", **values})
        )

    async def address(self, customer: Customer) -> Address:
        country = await self.country()
        return await self.add(
            Address(
                customer_id=customer.id,
                country_id=country.id,
                street=f"Street {next(self._numbers)}",
                city="Utrecht",
            )
        )

    async def supplier(self) -> Supplier:
        if self._supplier is None:
            country = await self.country()
            self._supplier = await self.add(Supplier(name="Supplier", country_id=country.id))
        return self._supplier

    async def product(self, **values) -> Product:
        number, supplier = next(self._numbers), await self.supplier()
        return await self.add(
            Product(
                **{
                    "sku": f"sku-{number}",
                    "name": f"Product {number}",
                    "state": "active",
                    "supplier_id": supplier.id,
                    **values,
                }
            )
        )

    async def warehouse(self) -> Warehouse:
        country = await self.country()
        return await self.add(Warehouse(code=f"w{next(self._numbers)}", country_id=country.id))

    async def variant(
        self, product: Product | None = None, amount: str | None = "10.00", **values
    ) -> Variant:
        """With a price, unless *amount* is None."""
        product = product or await self.product()
        name = f"variant {next(self._numbers)}"
        variant = await self.add(Variant(**{"product_id": product.id, "name": name, **values}))
        if amount is not None:
            await self.price(variant, amount)
        return variant

    async def price(self, variant: Variant, amount: str, from_quantity: int = 1) -> Price:
        if self._prices is None:
            self._prices = await self.add(PriceList(name="retail"))
        return await self.add(
            Price(
                variant_id=variant.id,
                price_list_id=self._prices.id,
                amount=Decimal(amount),
                from_quantity=from_quantity,
            )
        )

    async def stock(self, variant: Variant, quantity: int, reserved: int = 0) -> Stock:
        warehouse = await self.warehouse()
        return await self.add(
            Stock(
                variant_id=variant.id,
                warehouse_id=warehouse.id,
                quantity=quantity,
                reserved=reserved,
            )
        )

    async def cart(self, *quantities: int, amount: str = "10.00", in_stock: int = 100) -> Cart:
        """With a line, and stock, of a new product for each quantity."""
        customer = await self.customer()
        cart = await self.add(Cart(customer_id=customer.id))
        for quantity in quantities:
            variant = await self.variant(amount=amount)
            await self.stock(variant, in_stock)
            await self.add(CartLine(cart_id=cart.id, variant_id=variant.id, quantity=quantity))
        return cart

    async def order(self, *quantities: int, amount: str = "10.00", **values) -> Order:
        """With a line for each quantity, whose stock is reserved."""
        customer = await self.customer()
        total = Decimal(amount) * sum(quantities)
        order = await self.add(Order(**{"customer_id": customer.id, "total": total, **values}))
        for quantity in quantities:
            variant = await self.variant(amount=amount)
            await self.stock(variant, quantity + 5, reserved=quantity)
            await self.add(
                OrderLine(
                    order_id=order.id,
                    variant_id=variant.id,
                    quantity=quantity,
                    amount=Decimal(amount),
                )
            )
        return order

    async def payment(self, order: Order, amount: str) -> Payment:
        return await self.add(Payment(order_id=order.id, amount=Decimal(amount), method="card"))

    async def coupon(self, **values) -> Coupon:
        return await self.add(Coupon(**{"code": "SALE", "percent": 10, **values}))

    async def category(self, name: str, parent: Category | None = None) -> Category:
        return await self.add(Category(name=name, parent_id=parent.id if parent else None))

    async def review(self, product: Product, stars: int) -> Review:
        customer = await self.customer()
        return await self.add(Review(product_id=product.id, customer_id=customer.id, stars=stars))
