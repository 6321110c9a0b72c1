"""What the shop does; each function is one unit of work, and commits."""

from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shop.database import Session
from shop.models import (
    Address,
    Audit,
    Cart,
    CartLine,
    CouponUse,
    Customer,
    Order,
    OrderLine,
    Payment,
    Product,
    Refund,
    Review,
    Shipment,
    ShipmentLine,
    Stock,
    StockMove,
    Tag,
    Ticket,
    TicketMessage,
)
from shop.repositories import Carts, Coupons, Customers, Orders, Prices, Products, Stocks

STATES = {
    "placed": {"paid", "cancelled"},
    "paid": {"shipped", "refunded"},
    "shipped": {"delivered"},
    "delivered": {"refunded"},
    "cancelled": set(),
    "refunded": set(),
}
SELLABLE = {"active", "clearance"}


class Refused(Exception):
    """What was asked for is against a rule of the shop."""


async def audit(what: str, row_id: int) -> None:
    """In a session of its own: it stays if the work is rolled back later."""
    async with Session.begin() as session:
        session.add(Audit(what=what, row_id=row_id))


async def sign_up(session: AsyncSession, email: str, name: str) -> Customer:
    try:
        customer = await Customers(session).add(Customer(email=email.lower(), name=name))
        await session.commit()
    except IntegrityError:
        await session.rollback()
        raise Refused(f"{email} is taken") from None
    await audit("signed up", customer.id)
    return customer


async def move_to(
    session: AsyncSession, customer: Customer, street: str, city: str, country_id: int
) -> Address:
    address = Address(customer_id=customer.id, street=street, city=city, country_id=country_id)
    session.add(address)
    await session.commit()
    return address


async def publish(session: AsyncSession, product_id: int) -> Product:
    product = await Products(session).get(product_id)
    if product.state != "draft":
        raise Refused(f"{product.sku} is {product.state}")
    await session.refresh(product, ["variants"])
    if not product.variants:
        raise Refused(f"{product.sku} has no variants")
    for variant in product.variants:
        await Prices(session).of(variant.id, 1)
    product.state = "active"
    await session.commit()
    await audit("published", product.id)
    return product


async def tag(session: AsyncSession, product: Product, names: list[str]) -> list[str]:
    await session.refresh(product, ["tags"])
    there = {one.name for one in product.tags}
    for name in names:
        if name not in there:
            found = await session.scalar(select(Tag).where(Tag.name == name))
            product.tags.append(found or Tag(name=name))
            there.add(name)
    await session.commit()
    return sorted(there)


async def review(
    session: AsyncSession, product_id: int, customer_id: int, stars: int, text: str
) -> Review:
    written = Review(product_id=product_id, customer_id=customer_id, stars=stars, text=text)
    try:
        async with session.begin_nested():
            session.add(written)
    except IntegrityError:
        raise Refused("one review for each product, of one to five stars") from None
    await session.commit()
    return written


async def receive(session: AsyncSession, stock: Stock, number: int, reason: str) -> Stock:
    if stock.quantity + number < stock.reserved:
        raise Refused(f"{stock.reserved} are reserved")
    stock.quantity += number
    session.add(StockMove(stock_id=stock.id, change=number, reason=reason))
    await session.commit()
    return stock


async def put_into_cart(
    session: AsyncSession, cart_id: int, variant_id: int, quantity: int
) -> Cart:
    carts = Carts(session)
    cart = await carts.full(cart_id)
    lines = {line.variant_id: line for line in cart.lines}
    wanted = quantity + (lines[variant_id].quantity if variant_id in lines else 0)
    if await Stocks(session).free(variant_id) < wanted:
        raise Refused("there are not so many")
    if variant_id in lines:
        lines[variant_id].quantity = wanted
    else:
        session.add(CartLine(cart_id=cart_id, variant_id=variant_id, quantity=quantity))
    await session.commit()
    return await carts.full(cart_id)


async def place(session: AsyncSession, cart_id: int, coupon: str | None = None) -> Order:
    """Make an order of a cart: prices, reservations, the coupon."""
    cart = await Carts(session).full(cart_id)
    if not cart.lines:
        raise Refused("the cart is empty")
    order = await Orders(session).add(Order(customer_id=cart.customer_id))
    total = Decimal(0)
    for line in cart.lines:
        if line.variant.product.state not in SELLABLE:
            raise Refused(f"{line.variant.product.sku} is not sold")
        amount = await Prices(session).of(line.variant_id, line.quantity)
        session.add(
            OrderLine(
                order_id=order.id,
                variant_id=line.variant_id,
                quantity=line.quantity,
                amount=amount,
            )
        )
        total += amount * line.quantity
        await reserve(session, line.variant_id, line.quantity)
        await session.delete(line)
    if coupon:
        used = await Coupons(session).by_code(coupon)
        if used.uses_left < 1:
            raise Refused(f"{coupon} is used up")
        used.uses_left -= 1
        session.add(CouponUse(coupon_id=used.id, order_id=order.id))
        total = (total * (100 - used.percent) / 100).quantize(Decimal("0.01"))
    order.total = total
    await session.commit()
    await audit("placed", order.id)
    return await Orders(session).full(order.id)


async def reserve(session: AsyncSession, variant_id: int, number: int) -> None:
    for stock in await Stocks(session).of(variant_id):
        taken = min(number, stock.quantity - stock.reserved)
        stock.reserved += taken
        number -= taken
    if number:
        raise Refused("there are not so many")
    await session.flush()


def change_state(order: Order, state: str) -> None:
    if state not in STATES[order.state]:
        raise Refused(f"an order that is {order.state} cannot be {state}")
    order.state = state


async def pay(session: AsyncSession, order_id: int, amount: Decimal, method: str) -> Order:
    order = await Orders(session).full(order_id)
    paid = sum((payment.amount for payment in order.payments), Decimal(0))
    if paid + amount > order.total:
        raise Refused("that is more than is owed")
    session.add(Payment(order_id=order.id, amount=amount, method=method))
    if paid + amount == order.total:
        change_state(order, "paid")
    await session.commit()
    return await Orders(session).full(order_id)


async def ship(session: AsyncSession, order_id: int, warehouse_id: int) -> Shipment:
    order = await Orders(session).full(order_id)
    change_state(order, "shipped")
    shipment = Shipment(order_id=order.id, warehouse_id=warehouse_id)
    session.add(shipment)
    await session.flush()
    for line in order.lines:
        session.add(
            ShipmentLine(shipment_id=shipment.id, order_line_id=line.id, quantity=line.quantity)
        )
        for stock in await Stocks(session).of(line.variant_id):
            if stock.warehouse_id == warehouse_id:
                stock.quantity -= line.quantity
                stock.reserved -= line.quantity
                session.add(StockMove(stock_id=stock.id, change=-line.quantity, reason="shipped"))
    await session.commit()
    await audit("shipped", order.id)
    return shipment


async def cancel(session: AsyncSession, order_id: int) -> Order:
    order = await Orders(session).full(order_id)
    change_state(order, "cancelled")
    for line in order.lines:
        left = line.quantity
        for stock in await Stocks(session).of(line.variant_id):
            given = min(left, stock.reserved)
            stock.reserved -= given
            left -= given
    await session.commit()
    await audit("cancelled", order.id)
    return order


async def refund(session: AsyncSession, order_id: int, reason: str) -> list[Refund]:
    order = await Orders(session).full(order_id)
    change_state(order, "refunded")
    refunds = [
        Refund(payment_id=payment.id, amount=payment.amount, reason=reason)
        for payment in order.payments
    ]
    session.add_all(refunds)
    await session.commit()
    return refunds


async def open_ticket(
    session: AsyncSession, customer_id: int, subject: str, messages: list[str]
) -> Ticket:
    ticket = Ticket(customer_id=customer_id, subject=subject)
    session.add(ticket)
    await session.flush()
    session.add_all([TicketMessage(ticket_id=ticket.id, text=text) for text in messages])
    await session.commit()
    return ticket
