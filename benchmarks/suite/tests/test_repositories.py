from decimal import Decimal

import pytest
from shop.models import Customer, Order, OrderLine, Review, Tag, Variant
from shop.repositories import (
    Carts,
    Categories,
    Coupons,
    Customers,
    NotFound,
    Orders,
    Prices,
    Products,
    Stocks,
)
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

REPOSITORIES = [Carts, Categories, Coupons, Customers, Orders, Prices, Products, Stocks]
STATES = ["placed", "paid", "shipped", "delivered", "cancelled", "refunded"]


@pytest.mark.parametrize("repository", REPOSITORIES)
@pytest.mark.parametrize("number", [0, 1, 2, 50, 999])
async def test_a_row_that_is_not_there(session, repository, number):
    assert await repository(session).count() == 0
    with pytest.raises(NotFound, match=f"no {repository.model.__tablename__} {number}"):
        await repository(session).get(number)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_pages(session, make, number, size):
    names = [(await make.customer()).name for _ in range(7)]
    await session.commit()
    found = await Customers(session).page(number, size)
    assert [one.name for one in found] == names[(number - 1) * size : number * size]
    assert await Customers(session).count() == 7


@pytest.mark.parametrize("email", ["ada@example.org", "bob+shop@example.org", "ü@example.org"])
@pytest.mark.parametrize("others", [0, 1, 3, 10])
async def test_by_email(session, make, email, others):
    for _ in range(others):
        await make.customer()
    customer = await make.customer(email=email)
    await session.commit()
    assert await Customers(session).by_email(email) is customer
    assert await Customers(session).by_email("nobody@example.org") is None


@pytest.mark.parametrize("orders", [(0, 1, 2), (3, 3, 3), (5, 0, 1), (1, 1, 0)])
@pytest.mark.parametrize("at_least", [1, 2, 3])
async def test_customers_with_orders(session, make, orders, at_least):
    customers = [await make.customer() for _ in orders]
    for customer, number in zip(customers, orders, strict=True):
        session.add_all([Order(customer_id=customer.id) for _ in range(number)])
    await session.commit()
    found = await Customers(session).with_orders(at_least)
    wanted = [one for one, number in zip(customers, orders, strict=True) if number >= at_least]
    assert [*found] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["Blue chair", "Green table", "Red chair", "Red table"]),
        ("chair", ["Blue chair", "Red chair"]),
        ("CHAIR", ["Blue chair", "Red chair"]),
        ("red", ["Red chair", "Red table"]),
        ("lamp", []),
        ("e c", ["Blue chair"]),
    ],
)
@pytest.mark.parametrize("state", ["", "active", "draft", "clearance"])
async def test_search(session, make, text, wanted, state):
    for name in ("Red table", "Red chair", "Green table", "Blue chair"):
        await make.product(name=name, state=state or "active")
    await make.product(name="Red chair of others", state="sold")
    await session.commit()
    found = await Products(session).search(text, state or "active")
    assert [one.name for one in found] == wanted


@pytest.mark.parametrize("order", ["name", "sku", "id"])
@pytest.mark.parametrize("number", [2, 5, 9])
async def test_order_of_a_search(session, make, order, number):
    for n in range(number):
        await make.product(name=f"p{(n * 7) % 10}", sku=f"s{(n * 3) % 10}")
    await session.commit()
    values = [getattr(one, order) for one in await Products(session).search(order=order)]
    assert len(values) == number
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [(["new"], [0, 1]), (["sale"], [1, 2]), (["new", "sale"], [1]), (["none"], []), (["eco"], [2])],
)
async def test_tagged(session, make, names, wanted):
    products = [await make.product() for _ in range(3)]
    tags = {name: Tag(name=name) for name in ("new", "sale", "eco", "none")}
    session.add_all(tags.values())
    for product, own in zip(products, (["new"], ["new", "sale"], ["sale", "eco"]), strict=True):
        await session.refresh(product, ["tags"])
        product.tags.extend(tags[name] for name in own)
    await session.commit()
    assert await Products(session).tagged(*names) == [products[n] for n in wanted]


@pytest.mark.parametrize("stars", [[], [1], [5, 5], [1, 2, 3], [1, 5, 5, 5], [2, 3, 4, 5, 1, 3]])
@pytest.mark.parametrize("others", [0, 1, 4])
async def test_stars(session, make, stars, others):
    product, other = await make.product(), await make.product()
    for number in stars:
        await make.review(product, number)
    for _ in range(others):
        await make.review(other, 1)
    await session.commit()
    found = await Products(session).stars(product)
    assert found == (pytest.approx(sum(stars) / len(stars)) if stars else None)


@pytest.mark.parametrize("stars", [0, 6, -1, 100])
async def test_stars_are_from_one_to_five(session, make, stars):
    product = await make.product()
    customer = await make.customer()
    await session.commit()
    session.add(Review(product_id=product.id, customer_id=customer.id, stars=stars))
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()
    await session.refresh(product)
    assert await Products(session).stars(product) is None


@pytest.mark.parametrize("most", [1, 2, 3, 10])
@pytest.mark.parametrize("sold", [(1, 2, 3), (9, 1, 5), (4, 4, 4), (100, 50, 75)])
async def test_best_sellers(session, make, most, sold):
    found = {}
    order = await make.order()
    for number in sold:
        product = await make.product()
        variant = await make.variant(product)
        found[product.sku] = number
        line = {"order_id": order.id, "variant_id": variant.id, "amount": Decimal(1)}
        session.add_all([OrderLine(quantity=1, **line), OrderLine(quantity=number - 1, **line)])
    await session.commit()
    wanted = sorted(found.items(), key=lambda item: -item[1])[:most]
    assert await Products(session).best_sellers(most) == wanted


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [1, 2, 3])
async def test_categories_below(session, make, depth, width):
    root = parent = await make.category("root")
    await make.category("other root")
    names = []
    for level in range(depth):
        children = [await make.category(f"{level}-{n}", parent) for n in range(width)]
        names += [child.name for child in children]
        parent = children[0]
    await session.commit()
    assert await Categories(session).below(root) == sorted(names)
    assert await Categories(session).below(parent) == []


@pytest.mark.parametrize(
    ("quantity", "wanted"),
    [(1, "10.00"), (9, "10.00"), (10, "9.00"), (11, "9.00"), (99, "9.00"), (100, "7.50")],
)
async def test_price_by_quantity(session, make, quantity, wanted):
    variant = await make.variant(amount="10.00")
    await make.price(variant, "9.00", 10)
    await make.price(variant, "7.50", 100)
    await make.variant(amount="1.00")
    await session.commit()
    assert await Prices(session).of(variant.id, quantity) == Decimal(wanted)


@pytest.mark.parametrize("from_quantity", [2, 10, 1000])
async def test_no_price(session, make, from_quantity):
    variant = await make.variant(amount=None)
    await make.price(variant, "1.00", from_quantity)
    with pytest.raises(NotFound, match="no price"):
        await Prices(session).of(variant.id, from_quantity - 1)


@pytest.mark.parametrize("stocks", [[], [(5, 0)], [(5, 5)], [(5, 2), (7, 0)], [(1, 1), (9, 3)]])
@pytest.mark.parametrize("others", [0, 1, 3])
async def test_free_stock(session, make, stocks, others):
    variant = await make.variant()
    for quantity, reserved in stocks:
        await make.stock(variant, quantity, reserved)
    for _ in range(others):
        await make.stock(await make.variant(), 100)
    await session.commit()
    assert await Stocks(session).free(variant.id) == sum(a - b for a, b in stocks)


@pytest.mark.parametrize("quantities", [(1,), (2, 3), (1, 1, 1, 1)])
async def test_a_full_cart(session, make, quantities):
    cart = await make.cart(*quantities)
    await session.commit()
    session.expunge_all()
    found = await Carts(session).full(cart.id)
    assert [line.quantity for line in found.lines] == [*quantities]
    assert {line.variant.product.state for line in found.lines} == {"active"}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", [0, 1, 2, 4])
async def test_orders_in_a_state(session, make, state, number):
    wanted = [await make.order(state=state) for _ in range(number)]
    for other in STATES:
        if other != state:
            await make.order(state=other)
    await session.commit()
    assert [*await Orders(session).in_state(state)] == wanted


@pytest.mark.parametrize("totals", [(), (10,), (10, 20), (5, 5, 5)])
@pytest.mark.parametrize("state", ["placed", "paid", "cancelled"])
async def test_turnover(session, make, totals, state):
    for total in totals:
        await make.order(state=state, total=Decimal(total))
    await make.order(state="shipped", total=Decimal(7))
    await session.commit()
    wanted = {"shipped": Decimal(7)}
    if totals:
        wanted[state] = Decimal(0 if state == "cancelled" else sum(totals))
    assert await Orders(session).turnover() == wanted


@pytest.mark.parametrize("number", [1, 5, 20])
@pytest.mark.parametrize("value", [True, False])
async def test_bulk_update(session, make, number, value):
    for n in range(number):
        await make.customer(active=n % 2 == 0)
    await session.execute(update(Customer).values(active=value))
    await session.commit()
    found = (await session.scalars(select(Customer.active))).all()
    assert [*found] == [value] * number


@pytest.mark.parametrize("number", [1, 4, 16])
@pytest.mark.parametrize("keep", [0, 1])
async def test_bulk_delete(session, make, number, keep):
    product = await make.product()
    for n in range(number):
        await make.variant(product, amount=None, weight=n)
    await session.commit()
    await session.execute(delete(Variant).where(Variant.weight >= keep))
    await session.commit()
    left = (await session.scalars(select(Variant.weight))).all()
    assert [*left] == [*range(keep)]


@pytest.mark.parametrize("field", ["email", "name"])
@pytest.mark.parametrize("value", ["a@example.org", "Ada", ""])
async def test_a_rollback(session, make, field, value):
    customer = await make.customer()
    before = getattr(customer, field)
    await session.commit()
    setattr(customer, field, value)
    await session.flush()
    await session.rollback()
    await session.refresh(customer)
    assert getattr(customer, field) == before


@pytest.mark.parametrize("inside", [1, 2, 3, 5])
@pytest.mark.parametrize("undone", [True, False])
async def test_savepoints(session, make, inside, undone):
    await make.customer()
    nested = await session.begin_nested()
    for _ in range(inside):
        await make.customer()
    await (nested.rollback() if undone else nested.commit())
    await session.commit()
    assert await Customers(session).count() == (1 if undone else 1 + inside)
