from decimal import Decimal

import pytest
from shop import services
from shop.models import Audit, CouponUse, Refund, ShipmentLine, Stock, StockMove, TicketMessage
from shop.repositories import Carts, Coupons, Customers, NotFound, Orders, Stocks
from sqlalchemy import func, select

METHODS = ["card", "transfer", "cash"]


async def audited(session):
    return [*(await session.scalars(select(Audit.what).order_by(Audit.id))).all()]


@pytest.mark.parametrize("email", ["ada@example.org", "ADA@example.org", "Ada@Example.Org"])
@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "Ådä", "a" * 80])
async def test_sign_up(session, email, name):
    customer = await services.sign_up(session, email, name)
    assert (customer.email, customer.name) == ("ada@example.org", name)
    assert customer.active
    assert await audited(session) == ["signed up"]


@pytest.mark.parametrize("others", [0, 1, 5])
@pytest.mark.parametrize("email", ["taken@example.org", "TAKEN@example.org"])
async def test_an_email_that_is_taken(session, make, others, email):
    for _ in range(others):
        await make.customer()
    await make.customer(email="taken@example.org")
    await session.commit()
    with pytest.raises(services.Refused, match="is taken"):
        await services.sign_up(session, email, "Second")
    assert await Customers(session).count() == others + 1
    assert await audited(session) == []


@pytest.mark.parametrize("number", [1, 2, 3, 6])
@pytest.mark.parametrize("city", ["Utrecht", "Köln", "São Paulo", "Łódź"])
async def test_addresses(session, make, number, city):
    customer, country = await make.customer(), await make.country()
    for n in range(number):
        await services.move_to(session, customer, f"Street {n}", city, country.id)
    await session.refresh(customer, ["addresses"])
    assert [one.city for one in customer.addresses] == [city] * number


@pytest.mark.parametrize("variants", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("amount", ["0.01", "1.00", "10.00", "99999.99"])
async def test_publish(session, make, variants, amount):
    product = await make.product(state="draft")
    for _ in range(variants):
        await make.variant(product, amount)
    await session.commit()
    assert (await services.publish(session, product.id)).state == "active"
    assert await audited(session) == ["published"]


@pytest.mark.parametrize("state", ["active", "clearance", "sold"])
async def test_what_is_no_draft_is_not_published(session, make, state):
    product = await make.product(state=state)
    await session.commit()
    with pytest.raises(services.Refused, match=f"is {state}"):
        await services.publish(session, product.id)
    assert product.state == state


@pytest.mark.parametrize("priced", [0, 1, 2])
async def test_publish_needs_prices(session, make, priced):
    product = await make.product(state="draft")
    for _ in range(priced):
        await make.variant(product)
    await make.variant(product, amount=None)
    await session.commit()
    with pytest.raises(NotFound, match="no price"):
        await services.publish(session, product.id)
    assert await audited(session) == []


@pytest.mark.parametrize("before", [[], ["a"], ["a", "b"], ["d", "e", "f"]])
@pytest.mark.parametrize("names", [["a"], ["b", "c"], ["c", "c"], [], ["a", "d", "x"]])
async def test_tags(session, make, before, names):
    product, other = await make.product(), await make.product()
    await services.tag(session, other, ["a", "c"])
    await services.tag(session, product, before)
    found = await services.tag(session, product, names)
    assert found == sorted({*before, *names})


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("text", ["", "Good", "Très bien", "x" * 2000])
async def test_review(session, make, stars, text):
    product, customer = await make.product(), await make.customer()
    await session.commit()
    written = await services.review(session, product.id, customer.id, stars, text)
    await session.refresh(written)
    assert (written.stars, written.text) == (stars, text)
    with pytest.raises(services.Refused, match="one review"):
        await services.review(session, product.id, customer.id, stars, text)


@pytest.mark.parametrize("change", [-5, -1, 1, 10, 1000])
@pytest.mark.parametrize("reserved", [0, 3])
async def test_receive(session, make, change, reserved):
    stock = await make.stock(await make.variant(), 8, reserved)
    await session.commit()
    await services.receive(session, stock, change, "counted")
    moves = (await session.scalars(select(StockMove.change))).all()
    assert (stock.quantity, [*moves]) == (8 + change, [change])


@pytest.mark.parametrize("reserved", [1, 4, 8])
async def test_what_is_reserved_stays(session, make, reserved):
    stock = await make.stock(await make.variant(), 8, reserved)
    await session.commit()
    with pytest.raises(services.Refused, match=f"{reserved} are reserved"):
        await services.receive(session, stock, reserved - 9, "stolen")
    await session.refresh(stock)
    assert stock.quantity == 8


@pytest.mark.parametrize("quantity", [1, 2, 10, 50, 100])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_put_into_cart(session, make, quantity, times):
    cart, variant = await make.cart(), await make.variant()
    await make.stock(variant, 150)
    await make.stock(variant, 150)
    await session.commit()
    for _ in range(times):
        cart = await services.put_into_cart(session, cart.id, variant.id, quantity)
    assert [line.quantity for line in cart.lines] == [quantity * times]


@pytest.mark.parametrize("free", [0, 1, 9])
async def test_more_than_there_is(session, make, free):
    cart, variant = await make.cart(), await make.variant()
    await make.stock(variant, free + 3, reserved=3)
    await session.commit()
    with pytest.raises(services.Refused, match="not so many"):
        await services.put_into_cart(session, cart.id, variant.id, free + 1)
    assert (await Carts(session).full(cart.id)).lines == []


@pytest.mark.parametrize(
    "quantities", [(1,), (5,), (99,), (1, 2), (50, 1), (3, 3, 3), (1, 2, 3, 4), (1, 1, 1, 1, 1)]
)
@pytest.mark.parametrize("amount", ["0.01", "1.00", "9.99", "19.95", "123.45"])
async def test_place(session, make, quantities, amount):
    cart = await make.cart(*quantities, amount=amount)
    await session.commit()
    order = await services.place(session, cart.id)
    assert order.total == Decimal(amount) * sum(quantities)
    assert [line.quantity for line in order.lines] == [*quantities]
    reserved = (await session.scalars(select(Stock.reserved).order_by(Stock.id))).all()
    assert [*reserved] == [*quantities]
    assert (await Carts(session).full(cart.id)).lines == []
    assert await audited(session) == ["placed"]


@pytest.mark.parametrize("percent", [1, 5, 10, 15, 20, 33, 50, 75, 99, 100])
@pytest.mark.parametrize("uses", [1, 2, 10])
async def test_coupon(session, make, percent, uses):
    cart, coupon = await make.cart(3), await make.coupon(percent=percent, uses_left=uses)
    await session.commit()
    order = await services.place(session, cart.id, "SALE")
    assert order.total == Decimal(30) * (100 - percent) / 100
    assert (await Coupons(session).by_code("SALE")).uses_left == uses - 1
    used = (await session.scalars(select(CouponUse.order_id))).all()
    assert [*used] == [order.id]
    assert coupon.percent == percent


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        ("empty", "the cart is empty"),
        ("draft", "is not sold"),
        ("used up", "SALE is used up"),
        ("no coupon", "no coupon SALE"),
        ("too many", "not so many"),
    ],
)
@pytest.mark.parametrize("lines", [1, 3])
async def test_what_cannot_be_placed(session, make, problem, error, lines):
    in_stock = 1 if problem == "too many" else 100
    quantities = [] if problem == "empty" else [2] * lines
    cart = await make.cart(*quantities, in_stock=in_stock)
    if problem == "draft":
        (await Carts(session).full(cart.id)).lines[-1].variant.product.state = "draft"
    if problem == "used up":
        await make.coupon(uses_left=0)
    await session.commit()
    number = cart.id
    with pytest.raises((services.Refused, NotFound), match=error):
        await services.place(session, number, "SALE")
    await session.rollback()
    assert await Orders(session).count() == 0
    assert len((await Carts(session).full(number)).lines) == len(quantities)


@pytest.mark.parametrize(
    "parts",
    [["50.00"], ["20.00", "30.00"], ["10", "10", "10", "20"], ["0.01", "49.99"], ["10"] * 5],
)
@pytest.mark.parametrize("method", METHODS)
async def test_pay(session, make, parts, method):
    order = await make.order(2, 3)
    await session.commit()
    for part in parts:
        assert order.state == "placed"
        order = await services.pay(session, order.id, Decimal(part), method)
    assert order.state == "paid"
    assert [(one.amount, one.method) for one in order.payments] == [
        (Decimal(part), method) for part in parts
    ]


@pytest.mark.parametrize("paid", ["0.01", "25.00", "49.99"])
@pytest.mark.parametrize("method", METHODS)
async def test_more_than_is_owed(session, make, paid, method):
    order = await make.order(5)
    await make.payment(order, paid)
    await session.commit()
    with pytest.raises(services.Refused, match="more than is owed"):
        await services.pay(session, order.id, Decimal("50.00"), method)
    assert len((await Orders(session).full(order.id)).payments) == 1


@pytest.mark.parametrize(
    "quantities", [(1,), (4,), (9,), (2, 2), (1, 5), (1, 2, 3), (2, 2, 2), (1, 1, 1, 1)]
)
async def test_ship(session, make, quantities):
    order = await make.order(*quantities, state="paid")
    await session.commit()
    lines = (await Orders(session).full(order.id)).lines
    (stock,) = await Stocks(session).of(lines[0].variant_id)
    await services.ship(session, order.id, stock.warehouse_id)
    await session.refresh(stock)
    assert (order.state, stock.quantity, stock.reserved) == ("shipped", 5, 0)
    sent = (await session.scalars(select(ShipmentLine.quantity).order_by(ShipmentLine.id))).all()
    assert [*sent] == [*quantities]


@pytest.mark.parametrize("state", [*services.STATES])
@pytest.mark.parametrize("wanted", [*services.STATES])
async def test_states_of_an_order(session, make, state, wanted):
    order = await make.order(1, state=state)
    await session.commit()
    allowed = wanted in services.STATES[state]
    if allowed:
        services.change_state(order, wanted)
    else:
        with pytest.raises(services.Refused, match=f"that is {state} cannot be {wanted}"):
            services.change_state(order, wanted)
    await session.commit()
    await session.refresh(order)
    assert order.state == (wanted if allowed else state)


@pytest.mark.parametrize("quantities", [(1,), (4, 2), (1, 1, 1)])
async def test_cancel(session, make, quantities):
    order = await make.order(*quantities)
    await session.commit()
    assert (await services.cancel(session, order.id)).state == "cancelled"
    assert await session.scalar(select(func.sum(Stock.reserved))) == 0
    with pytest.raises(services.Refused):
        await services.cancel(session, order.id)


@pytest.mark.parametrize("amounts", [["10"], ["4", "6"], ["1", "2", "7"]])
@pytest.mark.parametrize("state", ["paid", "delivered"])
async def test_refund(session, make, amounts, state):
    order = await make.order(1, state=state)
    for amount in amounts:
        await make.payment(order, amount)
    await session.commit()
    await services.refund(session, order.id, "broken")
    found = (await session.scalars(select(Refund.amount).order_by(Refund.id))).all()
    assert [*found] == [Decimal(amount) for amount in amounts]


@pytest.mark.parametrize("number", [0, 1, 3, 10])
@pytest.mark.parametrize("subject", ["Help", "Where is my order?"])
async def test_ticket(session, make, number, subject):
    customer = await make.customer()
    ticket = await services.open_ticket(session, customer.id, subject, ["text"] * number)
    query = select(func.count()).where(TicketMessage.ticket_id == ticket.id)
    assert await session.scalar(query) == number
    assert ticket.state == "open"


@pytest.mark.parametrize("what", ["signed up", "placed", "shipped"])
@pytest.mark.parametrize("number", [1, 3])
async def test_audit_stays_after_a_rollback(session, make, what, number):
    await session.commit()
    for n in range(number):
        await services.audit(what, n)
    await make.customer()
    await session.rollback()
    assert await audited(session) == [what] * number
    assert await Customers(session).count() == 0
