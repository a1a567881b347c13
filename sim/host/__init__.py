"""The VioPay POS API from the host's side: an ASGI application over a ledger that survives a restart.

It holds a terminal to the protocol: every header, signature, window, order and rule is checked, every refusal
carries the error body, and what is answered is on the disk first. Time and randomness are handed in, there are no
threads and no background tasks, and what changes with time (a pending charge, a refund that fails, an expiry) is
computed from timestamps when it is asked for.

What it does *not* model:

- TLS. It speaks plain HTTP, for loopback; put a TLS server in front of it to test certificates and pins.
- Keycloak and the vendor's back office: a session token is opaque, merchants have one API client and no portal.
- Card schemes and issuers: the amount alone decides. No cryptogram is checked, no PIN is compared with anything
  (that a PIN block opens is), no issuer authentication data or script (tags 91, 71, 72) is made, and card data that
  a reader encrypted by itself (DUKPT) is not opened.
- Clearing: nothing settles by itself unless ``HostConfig.settle_after`` says so, and settled money goes nowhere.
- Adjusting an approval to a tip, pre-authorisation and capture, instalments, currency conversion, receipts.
- A hardware security module: the keys are in this process's memory, and on the disk under a key beside them.
- Rate limits, but for the number of live tokens and of nonces in the time window.
- The live CA keys: the terminal parameters have the right shape and size and random moduli.
"""
