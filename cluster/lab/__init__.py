"""``python -m cluster.lab``: a cluster of several hosts on one Linux machine, for trials and tests.

A host is a set of namespaces (network, processes, mounts, name) with its own address, ``/tmp`` and
``/dev/shm``. All hosts are inside one outer set of namespaces, and its first process is their
common ancestor: when it ends, the kernel ends the whole lab. `docs/operate/lab.md` describes how to
use the lab.

    plan        the hosts, their addresses and their programs, as plain data
    namespaces  create hosts, run programs in them, list and end their processes
    network     connect hosts, and cut them off
    databases   PostgreSQL and Redis
    model       fill the local cache of the hub with one model for all hub ids
    service     Ray, Serve, the ledger and the first key
    failover    move the database to a standby
    lab         load, use, describe and remove a lab
    start       bring everything up
"""
