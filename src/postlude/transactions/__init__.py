"""The port for transactions: what calls wait for besides the response (B3, C2).

A library's file in this package, once installed, tells of its transactions by itself:
`postlude.transactions.sqlalchemy.install()`. Whoever has no such file says it with a
block around his own: `with postlude.transaction():`.
"""

from postlude.transactions._around import begin, install_probe
from postlude.transactions._execute import Execute, Identity, before_commit
from postlude.transactions._gate import Gate
from postlude.transactions._transaction import Transaction, transaction

__all__ = [
    "Execute",
    "Gate",
    "Identity",
    "Transaction",
    "before_commit",
    "begin",
    "install_probe",
    "transaction",
]
