"""The job for a payment that has succeeded: write its receipt."""

import os

from job_scheduler import Job

# Stripe counts in hundredths, except for these. ISK and UGX are left out on purpose: they have
# no decimals either, but Stripe counts them in hundredths all the same.
WITHOUT_DECIMALS = {
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga",
    "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf",
}  # fmt: skip
WITH_THREE_DECIMALS = {"bhd", "jod", "kwd", "omr", "tnd"}


class PaymentSucceeded(Job):
    """Writes the receipt into the folder that RECEIPTS_DIR names.

    Doing it twice is harmless, and it has to be: Stripe may deliver an event more than once.
    """

    def process(
        self, *, event_id: str, payment_id: str, amount: int, currency: str, customer: str
    ) -> None:
        money = format_money(amount, currency)
        write_receipt(
            f"{payment_id}.txt",
            f"payment:  {payment_id}\n"
            f"amount:   {money}\n"
            f"customer: {customer or '-'}\n"
            f"event:    {event_id}\n",
        )
        # The end of the line is within the text, so that both are written at once: otherwise jobs
        # that print at the same time may tear each other's lines under PYTHONUNBUFFERED.
        print(f"receipt for {payment_id}: {money} (pid {os.getpid()})\n", end="", flush=True)


def format_money(amount: int, currency: str) -> str:
    """Return ``49.00 EUR`` for 4900 and ``"eur"``, in the units of Stripe."""
    if currency in WITHOUT_DECIMALS:
        return f"{amount} {currency.upper()}"
    decimals = 3 if currency in WITH_THREE_DECIMALS else 2
    whole, part = divmod(amount, 10**decimals)
    return f"{whole}.{part:0{decimals}} {currency.upper()}"


def write_receipt(name: str, text: str) -> None:
    """Write the file so that it is seen whole or not at all."""
    folder = os.environ.get("RECEIPTS_DIR") or default_folder()
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name.replace("/", "_"))
    unfinished = f"{path}.{os.getpid()}"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(unfinished, path)


def default_folder() -> str:
    """``receipts`` in the system's folder for temporary files."""
    from tempfile import gettempdir  # takes longer to import than the job to run, so only here

    return os.path.join(gettempdir(), "receipts")
