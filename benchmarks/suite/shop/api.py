"""The HTTP interface."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from shop import services
from shop.database import get_session
from shop.models import (
    Cart,
    Country,
    Price,
    PriceList,
    Product,
    Stock,
    Supplier,
    Variant,
    Warehouse,
)
from shop.repositories import Customers, NotFound, Orders, Products, Stocks

api = FastAPI()
Db = Annotated[AsyncSession, Depends(get_session)]


class Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class NewCustomer(BaseModel):
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: str = Field(min_length=1, max_length=80)


class ShownCustomer(Shown):
    email: str
    name: str
    active: bool


class ShownProduct(Shown):
    sku: str
    name: str
    state: str


class NewLine(BaseModel):
    variant_id: int
    quantity: int = Field(gt=0, le=1000)


class ShownLine(Shown):
    variant_id: int
    quantity: int


class ShownCart(Shown):
    lines: list[ShownLine]


class ShownOrder(Shown):
    state: str
    total: Decimal
    lines: list[ShownLine]


class NewPayment(BaseModel):
    amount: Decimal = Field(gt=0)
    method: str = Field(pattern="^(card|transfer|cash)$")


class NewReview(BaseModel):
    customer_id: int
    stars: int
    text: str = ""


class NewTicket(BaseModel):
    customer_id: int
    subject: str
    messages: list[str] = []


class NewOffer(BaseModel):
    """A product with all that is needed to sell it."""

    sku: str
    name: str
    amount: Decimal
    quantity: int


class ShownOffer(BaseModel):
    product: int
    variant: int
    cart: int


@api.exception_handler(NotFound)
async def not_found(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 404)


@api.exception_handler(services.Refused)
async def refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 409)


@api.middleware("http")
async def version(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers["X-Shop"] = "1"
    return response


@api.post("/customers", status_code=201)
async def add_customer(new: NewCustomer, db: Db) -> ShownCustomer:
    return ShownCustomer.model_validate(await services.sign_up(db, new.email, new.name))


@api.get("/customers")
async def customers(db: Db, page: int = 1, size: int = 20) -> list[ShownCustomer]:
    found = await Customers(db).page(page, size)
    return [ShownCustomer.model_validate(one) for one in found]


@api.get("/customers/{number}")
async def customer(number: int, db: Db) -> ShownCustomer:
    return ShownCustomer.model_validate(await Customers(db).get(number))


@api.patch("/customers/{number}")
async def change_customer(number: int, change: dict[str, Any], db: Db) -> ShownCustomer:
    found = await Customers(db).get(number)
    for name, value in change.items():
        if name not in {"name", "active"}:
            raise HTTPException(422, f"{name} cannot be changed")
        setattr(found, name, value)
    await db.commit()
    return ShownCustomer.model_validate(found)


@api.post("/offers", status_code=201)
async def add_offer(new: NewOffer, db: Db) -> ShownOffer:
    """A product with one variant, its price and stock, and a cart that is empty."""
    country = Country(code="xx", name="Nowhere", vat=Decimal(20))
    prices = PriceList(name=f"prices of {new.sku}")
    db.add_all([country, prices])
    await db.flush()
    supplier = Supplier(name=f"supplier of {new.sku}", country_id=country.id)
    warehouse = Warehouse(code=new.sku, country_id=country.id)
    db.add_all([supplier, warehouse])
    await db.flush()
    product = Product(sku=new.sku, name=new.name, state="active", supplier_id=supplier.id)
    variant = Variant(product=product, name="standard")
    db.add(variant)
    await db.flush()
    db.add(Price(variant_id=variant.id, price_list_id=prices.id, amount=new.amount))
    db.add(Stock(variant_id=variant.id, warehouse_id=warehouse.id, quantity=new.quantity))
    buyer = await services.sign_up(db, f"{new.sku}@example.org", "Buyer")
    cart = Cart(customer_id=buyer.id)
    db.add(cart)
    await db.commit()
    return ShownOffer(product=product.id, variant=variant.id, cart=cart.id)


@api.get("/products")
async def products(
    db: Db, text: str = "", state: str = "", order: str = "name"
) -> list[ShownProduct]:
    if order not in {"name", "sku", "id"}:
        raise HTTPException(422, f"cannot order by {order}")
    found = await Products(db).search(text, state, order)
    return [ShownProduct.model_validate(one) for one in found]


@api.post("/products/{number}/publish")
async def publish(number: int, db: Db) -> ShownProduct:
    return ShownProduct.model_validate(await services.publish(db, number))


@api.post("/products/{number}/reviews", status_code=201)
async def add_review(number: int, new: NewReview, db: Db) -> float | None:
    await services.review(db, number, new.customer_id, new.stars, new.text)
    return await Products(db).stars(await Products(db).get(number))


@api.post("/carts/{number}/lines")
async def add_line(number: int, new: NewLine, db: Db) -> ShownCart:
    cart = await services.put_into_cart(db, number, new.variant_id, new.quantity)
    return ShownCart.model_validate(cart)


@api.post("/carts/{number}/order", status_code=201)
async def place(number: int, db: Db, coupon: str | None = None) -> ShownOrder:
    return ShownOrder.model_validate(await services.place(db, number, coupon))


@api.get("/orders/{number}")
async def order(number: int, db: Db) -> ShownOrder:
    return ShownOrder.model_validate(await Orders(db).full(number))


@api.post("/orders/{number}/payments", status_code=201)
async def pay(number: int, new: NewPayment, db: Db) -> ShownOrder:
    return ShownOrder.model_validate(await services.pay(db, number, new.amount, new.method))


@api.post("/orders/{number}/shipment", status_code=201)
async def ship(number: int, warehouse_id: int, db: Db, tasks: BackgroundTasks) -> int:
    shipment = await services.ship(db, number, warehouse_id)
    tasks.add_task(services.audit, "told the customer", number)
    return shipment.id


@api.delete("/orders/{number}")
async def cancel(number: int, db: Db) -> str:
    return (await services.cancel(db, number)).state


@api.get("/stock/{variant_id}")
async def stock(variant_id: int, db: Db) -> int:
    return await Stocks(db).free(variant_id)


@api.post("/tickets", status_code=201)
async def open_ticket(new: NewTicket, db: Db) -> int:
    return (await services.open_ticket(db, new.customer_id, new.subject, new.messages)).id
