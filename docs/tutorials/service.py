"""A web service around a saved model: ``uvicorn service:app``, with the model's path in MODEL."""

import os
from typing import Annotated

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel, Field

from sk_torchmf import BiasedMatrixFactorization

torch.set_num_threads(1)  # a request is little work, and several are answered at once

# Loaded once, before the first request; processes that are forked afterwards share the memory.
model = BiasedMatrixFactorization.load(os.environ.get("MODEL", "shop/model"))
customers = set(model.users_)
column_of = {product: column for column, product in enumerate(model.items_)}
NEW = "\0"  # names the product of a request, which has no id yet

app = FastAPI(title="Recommendations")
Stars = Annotated[float, Field(ge=1, le=5)]
Price = Annotated[float, Field(gt=0, le=1e6)]
Ids = Annotated[list[str], Field(min_length=1, max_length=1000)]
HowMany = Annotated[int, Query(ge=1, le=100)]


class Pairs(BaseModel):
    """A customer, and the products to predict for them."""

    customer: str
    products: Ids


class NewProduct(BaseModel):
    """What is known of a product that nobody has reviewed, and the customers to predict it for."""

    customers: Ids
    price: Price | None = None
    tags: list[str] = []


class Predictions(BaseModel):
    """Expected stars and their standard deviations, in the order of the request."""

    stars: list[float]
    std: list[float]


class Recommendations(BaseModel):
    """Products, the best first, and the stars expected of them."""

    products: list[str]
    stars: list[float]


@app.get("/health")
def health() -> dict[str, int]:
    return {"customers": len(customers), "products": len(column_of)}


@app.post("/predictions")
def predict(pairs: Pairs) -> Predictions:
    check([pairs.customer], customers, "customers")
    check(pairs.products, column_of, "products")
    stars, std = model.predict([pairs.customer], pairs.products, return_std=True)
    return Predictions(stars=stars.tolist(), std=std.tolist())


@app.post("/predictions/new")
def predict_new_product(product: NewProduct) -> Predictions:
    check(product.customers, customers, "customers")
    features = pd.DataFrame({"price": [product.price], "tags": [product.tags]}, index=[NEW])
    features = features.astype({"price": float})  # None becomes NaN, which is allowed
    stars, std = model.predict(product.customers, [NEW], item_features=features, return_std=True)
    return Predictions(stars=stars.tolist(), std=std.tolist())


@app.get("/customers/{customer}/recommendations")
def recommend(customer: str, k: HowMany = 10) -> Recommendations:
    if customer not in customers:
        raise HTTPException(404, f"Unknown customer: {customer!r}. Post new ones to /recommendations.")
    return as_recommendations(*model.recommend(customer, k))


@app.post("/recommendations")
def recommend_to_new_customer(stars: dict[str, Stars], k: HowMany = 10) -> Recommendations:
    check(stars, column_of, "products")
    columns = [column_of[product] for product in stars]
    shape = (1, len(column_of))
    row = sp.csr_array((list(stars.values()), columns, [0, len(columns)]), shape=shape)
    products, expected = model.recommend(row, k)
    return as_recommendations(products[0], expected[0])


def check(ids, known, what):
    """Answer 422 where ids are unknown, and say which."""
    unknown = [one for one in ids if one not in known]
    if unknown:
        raise HTTPException(422, f"Unknown {what}: {unknown}.")


def as_recommendations(products, stars):
    """Without the fillers of a customer for whom fewer products remain."""
    remain = np.isfinite(stars)
    return Recommendations(products=products[remain].tolist(), stars=stars[remain].tolist())
