/*
 * access: only digests of tokens are kept and compared, each one to its end and all of them, so that the time it takes tells nothing about them.
 */
#include "proxy/access.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "proxy/redact.h"

/* Tokens ------------------------------------------------------------------------------------------------------------------------------------------ */

static const struct client_token *find_key(const struct proxy_settings *settings, struct slice key)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    const struct client_token *found = NULL;
    SHA256((const unsigned char *)key.data, key.size, digest);
    for (size_t i = 0; i < settings->token_count; i++) {
        const struct client_token *token = &settings->tokens[i];
        found = CRYPTO_memcmp(token->digest, digest, sizeof digest) == 0 ? token : found;
    }
    return found;
}

static const struct client_token *find_token(const struct proxy_settings *settings,
                                             const struct name_value *field)
{
    struct slice key = field->value, scheme = SLICE("Bearer ");
    if (settings->token_count == 0 || !redact_is_credential_field(field->name)) {
        return NULL;
    }
    if (slice_equal_nocase(field->name, SLICE("authorization"))) {
        if (key.size < scheme.size || !slice_equal_nocase((struct slice){key.data, scheme.size}, scheme)) {
            return NULL;
        }
        key = slice_trim((struct slice){key.data + scheme.size, key.size - scheme.size});
    }
    return find_key(settings, key);
}

/* A token has no spaces, so it is the last word, whatever scheme stands before it. */
bool access_is_token(const struct proxy_settings *settings, const struct name_value *field)
{
    struct slice value = slice_trim(field->value);
    size_t begin = value.size;
    if (settings->token_count == 0 || !redact_is_credential_field(field->name)) {
        return false;
    }
    while (begin > 0 && value.data[begin - 1] != ' ' && value.data[begin - 1] != '\t') {
        begin--;
    }
    return begin < value.size &&
           find_key(settings, (struct slice){value.data + begin, value.size - begin}) != NULL;
}

/* Addresses --------------------------------------------------------------------------------------------------------------------------------------- */

/* Cuts the member behind the last comma off *rest; false when it was used up. */
static bool last_member(struct slice *rest, struct slice *member)
{
    if (rest->data == NULL) {
        return false;
    }
    size_t begin = rest->size;
    while (begin > 0 && rest->data[begin - 1] != ',') {
        begin--;
    }
    *member = slice_trim((struct slice){rest->data + begin, rest->size - begin});
    *rest = begin > 0 ? (struct slice){rest->data, begin - 1} : (struct slice){NULL, 0};
    return true;
}

/* Some proxies write the port as well: "1.2.3.4:5", "[::1]:5". An interface ("fe80::1%eth0") means nothing beyond the machine that wrote it. */
static bool parse_member(struct slice text, struct address *address)
{
    const char *colon = memrchr(text.data, ':', text.size);
    bool has_port = colon != NULL && colon > text.data &&
                    (colon[-1] == ']' || memchr(text.data, ':', text.size) == colon);
    uint64_t port;
    if (has_port) {
        if (!slice_to_uint64(slice_range(colon + 1, text.data + text.size), &port) || port > UINT16_MAX) {
            return false;
        }
        text = slice_range(text.data, colon);
    }
    return memchr(text.data, '%', text.size) == NULL && address_from_ip(text, 0, address);
}

/* From the right, where the nearest proxy wrote, the first address that is no trusted proxy's; if there is none, the leftmost. False: there is none, or one on the way is malformed. */
static bool read_forwarded_for(const struct proxy_settings *settings, const struct http_fields *fields,
                               struct address *client)
{
    bool found = false;
    for (size_t i = fields->count; i > 0; i--) {
        struct slice rest = fields->items[i - 1].value, member;
        if (!slice_equal_nocase(fields->items[i - 1].name, SLICE("x-forwarded-for"))) {
            continue;
        }
        while (last_member(&rest, &member)) {
            if (member.size == 0 || !parse_member(member, client)) {
                return false;
            }
            address_unmap(client);
            found = true;
            if (!network_list_contains(&settings->trusted_proxies, client)) {
                return true;
            }
        }
    }
    return found;
}

/* --------------------------------------------------------------------------------------------------------------------------------------------------- */

void access_check(const struct proxy_settings *settings, const struct address *peer,
                  const struct http_fields *fields, struct access *access)
{
    struct address named;
    const struct address *client = peer;
    *access = (struct access){.trusted = network_list_contains(&settings->trusted_proxies, peer)};
    if (access->trusted && read_forwarded_for(settings, fields, &named)) {
        client = &named;
        address_format_ip(client, access->client);
    }
    for (size_t i = 0; i < fields->count && access->client_name == NULL; i++) {
        const struct client_token *token = find_token(settings, &fields->items[i]);
        access->client_name = token != NULL ? token->name : NULL;
    }
    if (settings->networks.count > 0 && !network_list_contains(&settings->networks, client)) {
        access->refusal = "the client's address is in none of clients.networks";
        access->refusal_message = "requests from this address are not accepted";
    } else if (settings->token_count > 0 && access->client_name == NULL) {
        access->refusal = "the request carries no token of clients.tokens";
    }
}
