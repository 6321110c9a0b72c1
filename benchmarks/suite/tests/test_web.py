"""Sync tests, through Starlette's test client."""

from decimal import Decimal

import pytest


@pytest.fixture
def offer(web):
    """The numbers of a chair, of which there are 20, and of a cart."""
    new = {"sku": "chair", "name": "Chair", "amount": "40.00", "quantity": 20}
    response = web.post("/offers", json=new)
    assert response.status_code == 201
    return response.json()


@pytest.mark.parametrize("name", ["Ada", "Grace Hopper", "Ådä"])
@pytest.mark.parametrize("others", [0, 1, 4])
def test_sign_up(web, name, others):
    for number in range(others):
        body = {"email": f"{number}@example.org", "name": "Other"}
        assert web.post("/customers", json=body).status_code == 201
    response = web.post("/customers", json={"email": "ada@example.org", "name": name})
    assert response.status_code == 201
    found = web.get("/customers").json()
    assert [one["name"] for one in found] == ["Other"] * others + [name]


@pytest.mark.parametrize("quantity", [1, 5, 10, 19, 20])
@pytest.mark.parametrize("parts", [1, 2, 4, 5])
def test_buy(web, offer, quantity, parts):
    line = {"variant_id": offer["variant"], "quantity": quantity}
    assert (
        web.post(f"/carts/{offer['cart']}/lines", json=line).json()["lines"][0]["quantity"]
        == quantity
    )
    order = web.post(f"/carts/{offer['cart']}/order").json()
    assert Decimal(order["total"]) == 40 * quantity
    for _ in range(parts):
        body = {"amount": str(Decimal(order["total"]) / parts), "method": "card"}
        paid = web.post(f"/orders/{order['id']}/payments", json=body).json()
    assert paid["state"] == "paid"
    assert web.get(f"/stock/{offer['variant']}").json() == 20 - quantity


@pytest.mark.parametrize("quantity", [1, 10, 20])
@pytest.mark.parametrize("times", [1, 2])
def test_cancel(web, offer, quantity, times):
    line = {"variant_id": offer["variant"], "quantity": quantity}
    for _ in range(times):
        web.post(f"/carts/{offer['cart']}/lines", json=line)
        order = web.post(f"/carts/{offer['cart']}/order").json()
        assert web.delete(f"/orders/{order['id']}").json() == "cancelled"
    assert web.get(f"/stock/{offer['variant']}").json() == 20


@pytest.mark.parametrize("quantity", [21, 100, 1000])
def test_more_than_there_is(web, offer, quantity):
    line = {"variant_id": offer["variant"], "quantity": quantity}
    assert web.post(f"/carts/{offer['cart']}/lines", json=line).status_code == 409
    assert web.post(f"/carts/{offer['cart']}/order").json() == {"detail": "the cart is empty"}


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("others", [0, 1, 3])
def test_review(web, offer, stars, others):
    path = f"/products/{offer['product']}/reviews"
    for number in range(others + 1):
        body = {"email": f"{number}@example.org", "name": "Reader"}
        reader = web.post("/customers", json=body).json()
        response = web.post(path, json={"customer_id": reader["id"], "stars": stars})
    assert (response.status_code, response.json()) == (201, stars)
    again = web.post(path, json={"customer_id": reader["id"], "stars": stars})
    assert again.status_code == 409


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("name", ["", "New name", "x" * 80])
def test_change(web, offer, active, name):
    (customer,) = web.get("/customers").json()
    path = f"/customers/{customer['id']}"
    web.patch(path, json={"active": active, "name": name})
    assert web.get(path).json() == {**customer, "active": active, "name": name}


@pytest.mark.parametrize("number", [1, 3, 8])
@pytest.mark.parametrize("messages", [0, 1, 4])
def test_tickets(web, offer, number, messages):
    (customer,) = web.get("/customers").json()
    body = {"customer_id": customer["id"], "subject": "Help", "messages": ["m"] * messages}
    found = {web.post("/tickets", json=body).json() for _ in range(number)}
    assert len(found) == number


@pytest.mark.parametrize("path", ["customers/1", "orders/1"])
def test_nothing_is_left_of_other_tests(web, path):
    assert web.get(f"/{path}").status_code == 404
    assert web.get("/products").json() == []
