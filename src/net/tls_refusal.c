/*
 * tls_refusal: the sentence is put together in a memory BIO and cut at the end. What stands in a certificate was written by strangers: only its printable
 * characters are passed on.
 */
#include "net/tls_refusal.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/slice.h"
#include "net/failure.h"

#define MAX_SIZE  ((size_t)360)
#define MAX_NAMES 4

static void put_name(BIO *out, const X509_NAME *name)
{
    if (X509_NAME_entry_count(name) == 0) {
        BIO_puts(out, "the certificate");
    } else {
        X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253);
    }
}

static void put_subject(BIO *out, const X509 *certificate)
{
    put_name(out, X509_get_subject_name(certificate));
}

static bool put_alternative(BIO *out, const GENERAL_NAME *name)
{
    int type;
    const ASN1_STRING *text = GENERAL_NAME_get0_value(name, &type);
    if (type == GEN_DNS) {
        ASN1_STRING_print_ex(out, text, ASN1_STRFLGS_ESC_CTRL | ASN1_STRFLGS_ESC_MSB);
        return true;
    }
    char ip[INET6_ADDRSTRLEN];
    int size = type == GEN_IPADD ? ASN1_STRING_length(text) : 0;
    if (size != 4 && size != 16) {
        return false;
    }
    inet_ntop(size == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(text), ip, sizeof ip);
    BIO_puts(out, ip);
    return true;
}

/* The names that the certificate is for, the first few of them. */
static void put_alternatives(BIO *out, const X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = names != NULL ? sk_GENERAL_NAME_num(names) : 0;
    int told = 0;
    bool begun = false;
    for (; told < count && told < MAX_NAMES; told++) {
        BIO_puts(out, begun ? ", " : "");
        begun = put_alternative(out, sk_GENERAL_NAME_value(names, told)) || begun;
    }
    if (count == 0) {
        put_subject(out, certificate);
    } else if (told < count) {
        BIO_printf(out, " and %d more", count - told);
    }
    GENERAL_NAMES_free(names);
}

static void put_details(BIO *out, int reason, const X509 *certificate, const char *name)
{
    switch (reason) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        BIO_printf(out, "the certificate is not for %.100s but for ", name);
        put_alternatives(out, certificate);
        break;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        put_subject(out, certificate);
        BIO_puts(out, " was valid until ");
        ASN1_TIME_print_ex(out, X509_get0_notAfter(certificate), ASN1_DTFLGS_ISO8601);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        put_subject(out, certificate);
        BIO_puts(out, " is valid from ");
        ASN1_TIME_print_ex(out, X509_get0_notBefore(certificate), ASN1_DTFLGS_ISO8601);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        put_name(out, X509_get_issuer_name(certificate));
        BIO_puts(out, " is no trusted authority, nor was its certificate sent; it issued that of ");
        put_subject(out, certificate);
        break;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        put_subject(out, certificate);
        BIO_puts(out, " is no trusted authority");
        break;
    default:
        put_subject(out, certificate);
        break;
    }
}

char *tls_refusal_new(X509_STORE_CTX *store, const char *name)
{
    int reason = X509_STORE_CTX_get_error(store);
    const X509 *certificate = X509_STORE_CTX_get_current_cert(store);
    char text[FAILURE_TEXT_SIZE];
    failure_text_of_sentence(X509_verify_cert_error_string(reason), text);
    BIO *out = BIO_new(BIO_s_mem());
    if (out == NULL) {
        abort();
    }
    BIO_puts(out, text);
    if (certificate != NULL) {
        BIO_puts(out, ": ");
        put_details(out, reason, certificate, name);
    }
    char *data;
    long size = BIO_get_mem_data(out, &data);
    struct slice sentence = {data, size > 0 ? (size_t)size : 0};
    sentence.size = sentence.size < MAX_SIZE ? sentence.size : MAX_SIZE;
    char *refusal = slice_to_string(sentence);
    BIO_free(out);
    return refusal;
}
