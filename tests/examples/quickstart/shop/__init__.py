"""A small shop: customers with a balance, products with a stock, orders."""
