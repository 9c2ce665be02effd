# Beside QEMU: verifies an ID token with authlib, which neither the provider nor the harness is made of. Then shows that the library
# refuses the same token when something is not as it should be. Prints the claims and the refusals as JSON.
#
#     python3 id_token.py <<< '{"token": …, "nonce": …, "keys": the provider's JSON Web Key Set}'
import json
import sys

from authlib.jose import JsonWebKey, jwt

ISSUER = "https://rave.local:3002/gitlab"
CLIENT = "synapse"
given = json.load(sys.stdin)
TOKEN, NONCE, KEYS = given["token"], given["nonce"], given["keys"]


def verify(token=TOKEN, client=CLIENT, nonce=NONCE, issuer=ISSUER, now=None):
    def exactly(value):
        return dict(essential=True, value=value)

    wanted = dict(iss=exactly(issuer), aud=exactly(client), nonce=exactly(nonce), exp=dict(essential=True), iat=dict(essential=True))
    claims = jwt.decode(token, JsonWebKey.import_key_set(KEYS), claims_options=wanted)
    claims.validate(now=now, leeway=0)
    return claims


claims = verify()
head, body, signature = TOKEN.split(".")
other = ("B" if signature[0] != "B" else "C") + signature[1:]
refused = dict()
for why, change in dict(
    another_client=dict(client="another"), another_nonce=dict(nonce="another"), another_issuer=dict(issuer=ISSUER + "/"),
    expired=dict(now=claims["exp"] + 1), changed=dict(token=".".join([head, body, other])),
).items():
    try:
        verify(**change)
    except Exception as error:
        refused[why] = type(error).__name__
print(json.dumps(dict(claims=claims, algorithm=claims.header["alg"], key=claims.header["kid"], known_keys=[key["kid"] for key in KEYS["keys"]],
                      lives=claims["exp"] - claims["iat"], refused=sorted(refused))))
