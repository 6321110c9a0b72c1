from decimal import Decimal

import pytest
from shop.models import Audit, Order
from shop.repositories import Customers, Orders, Stocks
from sqlalchemy import select

STATES = ["active", "draft", "clearance", "sold"]


@pytest.mark.parametrize("name", ["Ada", "Grace Hopper", "Ådä", "O'Hara", "x" * 80])
@pytest.mark.parametrize(
    "email", ["a@example.org", "B@example.org", "c+d@example.org", "e@f.example.org"]
)
async def test_sign_up(client, session, name, email):
    response = await client.post("/customers", json={"email": email, "name": name})
    assert response.status_code == 201
    found = await Customers(session).get(response.json()["id"])
    assert (found.email, found.name) == (email.lower(), name)
    again = await client.post("/customers", json={"email": email, "name": name})
    assert (again.status_code, again.json()) == (409, {"detail": f"{email} is taken"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@example.org"},
        {"name": "Ada"},
        {"email": "no address", "name": "Ada"},
        {"email": "a@example.org", "name": ""},
        {"email": "a@example.org", "name": "x" * 81},
    ],
)
async def test_what_is_no_customer(client, session, body):
    assert (await client.post("/customers", json=body)).status_code == 422
    assert await Customers(session).count() == 0


@pytest.mark.parametrize("page", [1, 2, 3, 9])
@pytest.mark.parametrize("size", [1, 3, 5, 8])
async def test_pages(client, session, make, page, size):
    numbers = [(await make.customer()).id for _ in range(8)]
    await session.commit()
    response = await client.get("/customers", params={"page": page, "size": size})
    assert [one["id"] for one in response.json()] == numbers[(page - 1) * size : page * size]
    assert response.headers["X-Shop"] == "1"


@pytest.mark.parametrize("path", ["customers", "orders"])
@pytest.mark.parametrize("number", [1, 77])
async def test_what_is_not_there(client, path, number):
    response = await client.get(f"/{path}/{number}")
    assert response.status_code == 404
    assert response.json()["detail"].endswith(str(number))


@pytest.mark.parametrize(
    "change", [{"name": "New"}, {"active": False}, {"name": "N", "active": False}]
)
@pytest.mark.parametrize("times", [1, 2])
async def test_change_a_customer(client, session, make, change, times):
    customer = await make.customer()
    await session.commit()
    for _ in range(times):
        response = await client.patch(f"/customers/{customer.id}", json=change)
        assert response.status_code == 200
    await session.refresh(customer)
    assert {name: getattr(customer, name) for name in change} == change
    assert (await client.get(f"/customers/{customer.id}")).json() == response.json()


@pytest.mark.parametrize("name", ["id", "email", "created_at", "nonsense"])
async def test_what_cannot_be_changed(client, session, make, name):
    customer = await make.customer()
    await session.commit()
    response = await client.patch(f"/customers/{customer.id}", json={"name": "x", name: "1"})
    assert response.status_code == 422
    await session.refresh(customer)
    assert customer.name != "x"


@pytest.mark.parametrize("state", ["", *STATES])
@pytest.mark.parametrize("order", ["name", "sku", "id"])
@pytest.mark.parametrize("text", ["", "1", "product", "lamp", "p"])
async def test_search(client, session, make, state, order, text):
    for one in STATES:
        await make.product(state=one)
        await make.product(state=one, name="Lamp 1")
    await session.commit()
    params = {"state": state, "order": order, "text": text}
    response = await client.get("/products", params=params)
    found = response.json()
    assert response.status_code == 200
    assert {one["state"] for one in found} == ({state} if state else {*STATES})
    assert all(text in one["name"].lower() for one in found)
    assert [one[order] for one in found] == sorted(one[order] for one in found)


@pytest.mark.parametrize("order", ["price", "supplier_id", "x; drop table product"])
async def test_an_order_that_there_is_not(client, order):
    assert (await client.get("/products", params={"order": order})).status_code == 422


@pytest.mark.parametrize("variants", [0, 1, 3])
@pytest.mark.parametrize("state", ["draft", "active", "sold"])
async def test_publish(client, session, make, variants, state):
    product = await make.product(state=state)
    for _ in range(variants):
        await make.variant(product)
    await session.commit()
    response = await client.post(f"/products/{product.id}/publish")
    allowed = bool(variants) and state == "draft"
    assert response.status_code == (200 if allowed else 409)
    await session.refresh(product)
    assert product.state == ("active" if allowed else state)


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("others", [[], [1], [5, 5, 5], [1, 2, 3, 4, 5]])
async def test_review(client, session, make, stars, others):
    product, customer = await make.product(), await make.customer()
    for one in others:
        await make.review(product, one)
    await session.commit()
    body = {"customer_id": customer.id, "stars": stars}
    response = await client.post(f"/products/{product.id}/reviews", json=body)
    assert response.status_code == 201
    assert response.json() == pytest.approx((stars + sum(others)) / (1 + len(others)))
    again = await client.post(f"/products/{product.id}/reviews", json=body)
    assert again.status_code == 409


@pytest.mark.parametrize("stars", [-1, 0, 6])
async def test_a_review_of_no_stars(client, session, make, stars):
    product, customer = await make.product(), await make.customer()
    await session.commit()
    body = {"customer_id": customer.id, "stars": stars}
    assert (await client.post(f"/products/{product.id}/reviews", json=body)).status_code == 409


@pytest.mark.parametrize("quantity", [1, 10, 99, 100])
@pytest.mark.parametrize("there", [0, 1, 3])
async def test_fill_a_cart(client, session, make, quantity, there):
    cart, variant = await make.cart(*[1] * there), await make.variant()
    await make.stock(variant, 100)
    await session.commit()
    line = {"variant_id": variant.id, "quantity": quantity}
    response = await client.post(f"/carts/{cart.id}/lines", json=line)
    assert [one["quantity"] for one in response.json()["lines"]] == [1] * there + [quantity]
    more = await client.post(f"/carts/{cart.id}/lines", json={**line, "quantity": 101 - quantity})
    assert more.status_code == 409


@pytest.mark.parametrize("quantity", [0, -1, 1001, "many", None])
async def test_a_quantity_that_is_none(client, session, make, quantity):
    cart, variant = await make.cart(), await make.variant()
    await session.commit()
    line = {"variant_id": variant.id, "quantity": quantity}
    assert (await client.post(f"/carts/{cart.id}/lines", json=line)).status_code == 422


@pytest.mark.parametrize(
    "quantities", [(1,), (7,), (100,), (1, 2), (9, 9), (5, 5, 5), (1, 2, 3, 4), (1, 1, 1, 1, 1)]
)
@pytest.mark.parametrize("coupon", [None, "SALE", "NONE"])
async def test_place(client, session, make, quantities, coupon):
    cart = await make.cart(*quantities)
    await make.coupon(percent=20)
    await session.commit()
    params = {"coupon": coupon} if coupon else {}
    response = await client.post(f"/carts/{cart.id}/order", params=params)
    if coupon == "NONE":
        assert response.status_code == 404
        assert await Orders(session).count() == 0
        return
    assert response.status_code == 201
    found = response.json()
    percent = 80 if coupon else 100
    assert Decimal(found["total"]) == sum(quantities) * 10 * percent / Decimal(100)
    assert (await client.get(f"/orders/{found['id']}")).json() == found
    assert (await client.post(f"/carts/{cart.id}/order")).status_code == 409


@pytest.mark.parametrize(
    "parts", [[30], [10, 20], [29, 1], [10, 10, 10], [1, 2, 3, 24], [5, 5, 5, 5, 5, 5]]
)
@pytest.mark.parametrize("method", ["card", "transfer", "cash"])
async def test_pay(client, session, make, parts, method):
    order = await make.order(1, 2)
    await session.commit()
    for part in parts:
        body = {"amount": part, "method": method}
        response = await client.post(f"/orders/{order.id}/payments", json=body)
        assert response.status_code == 201
    assert response.json()["state"] == "paid"
    more = await client.post(f"/orders/{order.id}/payments", json=body)
    assert more.status_code == 409


@pytest.mark.parametrize("amount", [0, -5, "x", None])
@pytest.mark.parametrize("method", ["card", "barter"])
async def test_what_is_no_payment(client, session, make, amount, method):
    order = await make.order(1)
    await session.commit()
    body = {"amount": amount, "method": method}
    assert (await client.post(f"/orders/{order.id}/payments", json=body)).status_code == 422
    assert (await Orders(session).full(order.id)).payments == []


@pytest.mark.parametrize(
    "quantities", [(1,), (2,), (9,), (3, 1), (1, 3), (2, 2, 2), (3, 2, 1), (1, 1, 1, 1)]
)
async def test_ship(client, session, make, quantities):
    order = await make.order(*quantities, state="paid")
    await session.commit()
    line = (await Orders(session).full(order.id)).lines[0]
    (stock,) = await Stocks(session).of(line.variant_id)
    await session.commit()
    path = f"/orders/{order.id}/shipment?warehouse_id={stock.warehouse_id}"
    assert (await client.post(path)).status_code == 201
    audited = (await session.scalars(select(Audit.what).order_by(Audit.id))).all()
    assert [*audited] == ["shipped", "told the customer"]
    assert await session.scalar(select(Order.state).where(Order.id == order.id)) == "shipped"
    assert (await client.post(path)).status_code == 409


@pytest.mark.parametrize("state", ["placed", "paid", "shipped", "delivered", "cancelled"])
@pytest.mark.parametrize("quantity", [1, 2, 5])
async def test_cancel(client, session, make, state, quantity):
    order = await make.order(quantity, state=state)
    await session.commit()
    line = (await Orders(session).full(order.id)).lines[0]
    await session.commit()
    response = await client.delete(f"/orders/{order.id}")
    assert response.status_code == (200 if state == "placed" else 409)
    free = (await client.get(f"/stock/{line.variant_id}")).json()
    assert free == 5 + (quantity if state == "placed" else 0)


@pytest.mark.parametrize("messages", [0, 1, 5])
@pytest.mark.parametrize("subject", ["Help", "Hilfe"])
async def test_ticket(client, session, make, messages, subject):
    customer = await make.customer()
    await session.commit()
    body = {"customer_id": customer.id, "subject": subject, "messages": ["m"] * messages}
    first, second = [await client.post("/tickets", json=body) for _ in range(2)]
    assert first.status_code == second.status_code == 201
    assert first.json() != second.json()


@pytest.mark.parametrize("quantity", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("percent", [0, 10, 25, 50])
@pytest.mark.parametrize("amount", ["0.50", "3.00", "19.95"])
async def test_from_the_cart_to_the_shipment(client, session, make, quantity, percent, amount):
    cart, variant = await make.cart(), await make.variant(amount=amount)
    stock = await make.stock(variant, quantity)
    await make.coupon(percent=percent)
    await session.commit()
    line = {"variant_id": variant.id, "quantity": quantity}
    await client.post(f"/carts/{cart.id}/lines", json=line)
    order = (await client.post(f"/carts/{cart.id}/order?coupon=SALE")).json()
    body = {"amount": order["total"], "method": "card"}
    paid = (await client.post(f"/orders/{order['id']}/payments", json=body)).json()
    assert paid["state"] == "paid"
    path = f"/orders/{order['id']}/shipment?warehouse_id={stock.warehouse_id}"
    assert (await client.post(path)).status_code == 201
    assert (await client.get(f"/stock/{variant.id}")).json() == 0
    await session.refresh(stock)
    assert (stock.quantity, stock.reserved) == (0, 0)
