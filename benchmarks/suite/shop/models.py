"""The tables."""

import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, ForeignKey, Numeric, String, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Row(Base):
    """What most tables have."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=func.now())


def to(table: str, **options: bool) -> Mapped[int]:
    return mapped_column(ForeignKey(f"{table}.id", ondelete="CASCADE"), index=True, **options)


# Places and people.


class Country(Row):
    __tablename__ = "country"
    code: Mapped[str] = mapped_column(String(2), unique=True)
    name: Mapped[str] = mapped_column(String(80))
    vat: Mapped[Decimal] = mapped_column(Numeric(5, 2))


class Employee(Row):
    __tablename__ = "employee"
    email: Mapped[str] = mapped_column(String(120), unique=True)
    role: Mapped[str] = mapped_column(String(20), default="clerk")


class Customer(Row):
    __tablename__ = "customer"
    email: Mapped[str] = mapped_column(String(120), unique=True)
    name: Mapped[str] = mapped_column(String(80), index=True)
    active: Mapped[bool] = mapped_column(default=True)
    addresses: Mapped[list["Address"]] = relationship(back_populates="customer")
    orders: Mapped[list["Order"]] = relationship(back_populates="customer")


class Address(Row):
    __tablename__ = "address"
    customer_id: Mapped[int] = to("customer")
    country_id: Mapped[int] = to("country")
    street: Mapped[str] = mapped_column(String(120))
    city: Mapped[str] = mapped_column(String(80))
    customer: Mapped[Customer] = relationship(back_populates="addresses")
    country: Mapped[Country] = relationship()


class CustomerGroup(Row):
    __tablename__ = "customer_group"
    name: Mapped[str] = mapped_column(String(40), unique=True)
    discount: Mapped[Decimal] = mapped_column(Numeric(5, 2), default=Decimal(0))


class GroupMember(Base):
    __tablename__ = "group_member"
    group_id: Mapped[int] = mapped_column(ForeignKey("customer_group.id"), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"), primary_key=True)


# What is sold.


class Supplier(Row):
    __tablename__ = "supplier"
    name: Mapped[str] = mapped_column(String(80), unique=True)
    country_id: Mapped[int] = to("country")


class Category(Row):
    __tablename__ = "category"
    name: Mapped[str] = mapped_column(String(80))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("category.id"), index=True)
    children: Mapped[list["Category"]] = relationship(order_by="Category.name")


class Product(Row):
    __tablename__ = "product"
    sku: Mapped[str] = mapped_column(String(40), unique=True)
    name: Mapped[str] = mapped_column(String(120), index=True)
    description: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[str] = mapped_column(String(20), default="draft", index=True)
    supplier_id: Mapped[int] = to("supplier")
    supplier: Mapped[Supplier] = relationship()
    variants: Mapped[list["Variant"]] = relationship(
        back_populates="product", order_by="Variant.id"
    )
    tags: Mapped[list["Tag"]] = relationship(secondary="product_tag", order_by="Tag.name")
    categories: Mapped[list[Category]] = relationship(secondary="product_category")


class ProductCategory(Base):
    __tablename__ = "product_category"
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("category.id"), primary_key=True)


class Tag(Row):
    __tablename__ = "tag"
    name: Mapped[str] = mapped_column(String(40), unique=True)


class ProductTag(Base):
    __tablename__ = "product_tag"
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    tag_id: Mapped[int] = mapped_column(ForeignKey("tag.id"), primary_key=True)


class Variant(Row):
    __tablename__ = "variant"
    product_id: Mapped[int] = to("product")
    name: Mapped[str] = mapped_column(String(40))
    weight: Mapped[int] = mapped_column(default=100)
    product: Mapped[Product] = relationship(back_populates="variants")
    __table_args__ = (UniqueConstraint("product_id", "name"),)


class PriceList(Row):
    __tablename__ = "price_list"
    name: Mapped[str] = mapped_column(String(40), unique=True)
    currency: Mapped[str] = mapped_column(String(3), default="EUR")


class Price(Row):
    __tablename__ = "price"
    variant_id: Mapped[int] = to("variant")
    price_list_id: Mapped[int] = to("price_list")
    from_quantity: Mapped[int] = mapped_column(default=1)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    __table_args__ = (UniqueConstraint("variant_id", "price_list_id", "from_quantity"),)


class Review(Row):
    __tablename__ = "review"
    product_id: Mapped[int] = to("product")
    customer_id: Mapped[int] = to("customer")
    stars: Mapped[int]
    text: Mapped[str] = mapped_column(Text, default="")
    __table_args__ = (
        UniqueConstraint("product_id", "customer_id"),
        CheckConstraint("stars BETWEEN 1 AND 5", name="stars_range"),
    )


class Wish(Row):
    __tablename__ = "wish"
    customer_id: Mapped[int] = to("customer")
    product_id: Mapped[int] = to("product")


# Where it is.


class Warehouse(Row):
    __tablename__ = "warehouse"
    code: Mapped[str] = mapped_column(String(20), unique=True)
    country_id: Mapped[int] = to("country")


class Stock(Row):
    __tablename__ = "stock"
    warehouse_id: Mapped[int] = to("warehouse")
    variant_id: Mapped[int] = to("variant")
    quantity: Mapped[int] = mapped_column(default=0)
    reserved: Mapped[int] = mapped_column(default=0)
    __table_args__ = (UniqueConstraint("warehouse_id", "variant_id"),)


class StockMove(Row):
    __tablename__ = "stock_move"
    stock_id: Mapped[int] = to("stock")
    change: Mapped[int]
    reason: Mapped[str] = mapped_column(String(40))


# What customers do.


class Cart(Row):
    __tablename__ = "cart"
    customer_id: Mapped[int] = to("customer")
    lines: Mapped[list["CartLine"]] = relationship(order_by="CartLine.id")


class CartLine(Row):
    __tablename__ = "cart_line"
    cart_id: Mapped[int] = to("cart")
    variant_id: Mapped[int] = to("variant")
    quantity: Mapped[int]
    variant: Mapped[Variant] = relationship()
    __table_args__ = (UniqueConstraint("cart_id", "variant_id"),)


class Coupon(Row):
    __tablename__ = "coupon"
    code: Mapped[str] = mapped_column(String(20), unique=True)
    percent: Mapped[int]
    uses_left: Mapped[int] = mapped_column(default=1)


class CouponUse(Row):
    __tablename__ = "coupon_use"
    coupon_id: Mapped[int] = to("coupon")
    order_id: Mapped[int] = to("order_")


class Order(Row):
    __tablename__ = "order_"
    customer_id: Mapped[int] = to("customer")
    address_id: Mapped[int | None] = mapped_column(ForeignKey("address.id"), index=True)
    state: Mapped[str] = mapped_column(String(20), default="placed", index=True)
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=Decimal(0))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list["OrderLine"]] = relationship(order_by="OrderLine.id")
    payments: Mapped[list["Payment"]] = relationship(order_by="Payment.id")


class OrderLine(Row):
    __tablename__ = "order_line"
    order_id: Mapped[int] = to("order_")
    variant_id: Mapped[int] = to("variant")
    quantity: Mapped[int]
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    variant: Mapped[Variant] = relationship()


class Payment(Row):
    __tablename__ = "payment"
    order_id: Mapped[int] = to("order_")
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    method: Mapped[str] = mapped_column(String(20))


class Refund(Row):
    __tablename__ = "refund"
    payment_id: Mapped[int] = to("payment")
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    reason: Mapped[str] = mapped_column(String(120))


class Shipment(Row):
    __tablename__ = "shipment"
    order_id: Mapped[int] = to("order_")
    warehouse_id: Mapped[int] = to("warehouse")
    state: Mapped[str] = mapped_column(String(20), default="packed")


class ShipmentLine(Row):
    __tablename__ = "shipment_line"
    shipment_id: Mapped[int] = to("shipment")
    order_line_id: Mapped[int] = to("order_line")
    quantity: Mapped[int]


class Ticket(Row):
    __tablename__ = "ticket"
    customer_id: Mapped[int] = to("customer")
    employee_id: Mapped[int | None] = mapped_column(ForeignKey("employee.id"), index=True)
    subject: Mapped[str] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(20), default="open")


class TicketMessage(Row):
    __tablename__ = "ticket_message"
    ticket_id: Mapped[int] = to("ticket")
    text: Mapped[str] = mapped_column(Text)


class Audit(Row):
    __tablename__ = "audit"
    what: Mapped[str] = mapped_column(String(60), index=True)
    row_id: Mapped[int]
