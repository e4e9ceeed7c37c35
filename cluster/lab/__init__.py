"""``python -m cluster.lab``: a cluster of several hosts on one Linux machine, for trials and tests.

A host is a set of namespaces (network, processes, mounts, name) with its own address, ``/tmp`` and
``/dev/shm``. All hosts are inside one outer set of namespaces, and its first process is their
common ancestor: when it ends, the kernel ends the whole lab. `docs/operate/lab.md` describes the
use.

    plan        the hosts, their addresses and their programs, as plain data
    namespaces  create hosts, run programs in them, list and end their processes
    network     connect hosts, and cut them off
    databases   PostgreSQL and Redis
    model       the local cache of the hub, with a model in place of each hub model
    service     Ray, Serve, the ledger and the first key
    failover    move the database to a standby
    lab         use the lab, describe it, and remove it
    start       bring everything up
"""
