/*
 * resolver: getaddrinfo on threads of its own.
 *
 * What is known of a name, what is being asked and who waits for it is one struct question, in one table under one mutex. A thread is started when there is
 * a question and no thread free, asks until no question is left, and ends: with a cache of 30 s an idle thread would mostly sleep. Threads hold a
 * reference to the resolver, so one that is stuck in getaddrinfo when the resolver is freed keeps what it needs and nobody waits for it.
 */
#include "net/resolver.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/reference.h"
#include "net/failure.h"

#define MAX_THREADS    16 /* as many dead names at a time hold up nobody else */
#define MAX_QUESTIONS  256
#define MAX_NAME_SIZE  255
#define ANSWER_TTL_NS  (30 * NANOSECONDS_PER_SECOND)
#define FAILURE_TTL_NS (1 * NANOSECONDS_PER_SECOND)

/* QUEUED: waits for a thread. ASKED: a thread is in getaddrinfo with it. ANSWERED: fresh until expires_ns, then to be asked again. */
enum question_state { QUESTION_QUEUED, QUESTION_ASKED, QUESTION_ANSWERED };

struct question {
    char *host;
    enum question_state state;
    uint64_t expires_ns;
    struct resolver_result answer; /* ports 0 */
    struct resolver_query *waiting;
    struct question *next_queued;
};

struct resolver {
    struct reference reference; /* the owner's, and one for each thread */
    pthread_mutex_t mutex;
    /* All below is guarded by the mutex. */
    struct question *questions[MAX_QUESTIONS];
    size_t question_count;
    struct question *queue, **queue_end;
    unsigned queued;
    unsigned threads;
    unsigned free_threads; /* those about to look at the queue */
};

struct resolver_query {
    struct resolver *resolver;
    struct loop *loop;
    struct loop_call call; /* brings the result to the loop */
    struct question
        *question; /* waited for; NULL when the result is on its way. Guarded by the resolver's mutex */
    struct resolver_query *next, *previous; /* who else waits */
    uint16_t port;
    void (*callback)(void *owner, const struct resolver_result *result);
    void *owner;
    struct resolver_result result;
};

/* ------------------------------------------------------------------------------------------------ asking */

/* Takes every other address from the other family, so that a family that does not work costs one attempt, not all of them. */
static void copy_addresses(const struct addrinfo *list, struct resolver_result *result)
{
    const struct addrinfo *first = list, *second = list;
    int first_family = list != NULL ? list->ai_family : AF_UNSPEC;
    bool from_first = true;
    while (result->count < RESOLVER_MAX_ADDRESSES && (first != NULL || second != NULL)) {
        const struct addrinfo **from = from_first ? &first : &second;
        while (*from != NULL && (((*from)->ai_family == first_family) != from_first ||
                                 (*from)->ai_addrlen > sizeof result->addresses[0].socket)) {
            *from = (*from)->ai_next;
        }
        if (*from != NULL) {
            struct address *address = &result->addresses[result->count++];
            address->size = (*from)->ai_addrlen;
            memcpy(&address->socket, (*from)->ai_addr, address->size);
            *from = (*from)->ai_next;
        }
        from_first = !from_first;
    }
}

/* Blocks. No AI_ADDRCONFIG: without a network it would hide addresses of this very machine; an address that cannot be reached fails at once when connecting. */
static void ask(const char *host, struct resolver_result *result)
{
    char why[FAILURE_TEXT_SIZE];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    *result = (struct resolver_result){0};
    int code = getaddrinfo(host, NULL, &hints, &list);
    int number = errno;
    if (code == 0) {
        copy_addresses(list, result);
        freeaddrinfo(list);
    }
    if (code == EAI_SYSTEM) {
        error_set(&result->error, "cannot resolve %s: %s", host, failure_text_of_errno(number, why));
    } else if (code != 0) {
        error_set(&result->error, "cannot resolve %s: %s", host,
                  failure_text_of_sentence(gai_strerror(code), why));
    } else if (result->count == 0) {
        error_set(&result->error, "cannot resolve %s: it has no address", host);
    }
}

/* ------------------------------------------------------------------------------------------------ answering */

static void set_port(struct address *address, uint16_t port)
{
    if (address->socket.any.sa_family == AF_INET) {
        address->socket.ip4.sin_port = htons(port);
    } else {
        address->socket.ip6.sin6_port = htons(port);
    }
}

static void copy_result(struct resolver_result *to, const struct resolver_result *from, uint16_t port)
{
    *to = *from;
    for (size_t i = 0; i < to->count; i++) {
        set_port(&to->addresses[i], port);
    }
}

static void unlink_query(struct resolver_query *query)
{
    if (query->previous != NULL) {
        query->previous->next = query->next;
    } else {
        query->question->waiting = query->next;
    }
    if (query->next != NULL) {
        query->next->previous = query->previous;
    }
    query->question = NULL;
}

/* With the mutex: after it a query may be cancelled and its loop be gone. */
static void answer_all(struct question *question, const struct resolver_result *answer)
{
    question->state = QUESTION_ANSWERED;
    question->answer = *answer;
    question->expires_ns = clock_monotonic_ns() + (answer->count > 0 ? ANSWER_TTL_NS : FAILURE_TTL_NS);
    while (question->waiting != NULL) {
        struct resolver_query *query = question->waiting;
        unlink_query(query);
        copy_result(&query->result, answer, query->port);
        loop_call_post(query->loop, &query->call);
    }
}

static void release(struct resolver *resolver)
{
    if (!reference_release(&resolver->reference)) {
        return;
    }
    for (size_t i = 0; i < resolver->question_count; i++) {
        free(resolver->questions[i]->host);
        free(resolver->questions[i]);
    }
    pthread_mutex_destroy(&resolver->mutex);
    free(resolver);
}

static struct question *take_queued(struct resolver *resolver)
{
    struct question *question = resolver->queue;
    if (question != NULL) {
        resolver->queued--;
        resolver->queue = question->next_queued;
        if (resolver->queue == NULL) {
            resolver->queue_end = &resolver->queue;
        }
    }
    return question;
}

static void *run(void *argument)
{
    struct resolver *resolver = argument;
    struct question *question;
    pthread_mutex_lock(&resolver->mutex);
    while ((question = take_queued(resolver)) != NULL) {
        struct resolver_result answer;
        question->state = QUESTION_ASKED; /* its host stays as it is while it is asked */
        resolver->free_threads--;
        pthread_mutex_unlock(&resolver->mutex);
        ask(question->host, &answer);
        pthread_mutex_lock(&resolver->mutex);
        resolver->free_threads++;
        answer_all(question, &answer);
    }
    resolver->free_threads--;
    resolver->threads--;
    pthread_mutex_unlock(&resolver->mutex);
    release(resolver);
    return NULL;
}

/* With the mutex. */
static void start_thread(struct resolver *resolver)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    reference_take(&resolver->reference);
    bool started = pthread_create(&thread, NULL, run, resolver) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!started) {
        bool last = reference_release(&resolver->reference);
        assert(!last);
        (void)last;
        return;
    }
    pthread_detach(thread);
    resolver->threads++;
    resolver->free_threads++;
}

/* With the mutex. */
static void enqueue(struct resolver *resolver, struct question *question)
{
    question->state = QUESTION_QUEUED;
    question->next_queued = NULL;
    *resolver->queue_end = question;
    resolver->queue_end = &question->next_queued;
    resolver->queued++;
    if (resolver->queued > resolver->free_threads && resolver->threads < MAX_THREADS) {
        start_thread(resolver);
    }
    if (resolver->threads > 0) {
        return;
    }
    struct resolver_result answer = {0};
    error_set(&answer.error, "cannot resolve %s: no thread can be started", question->host);
    take_queued(resolver);
    answer_all(question, &answer);
}

/* ------------------------------------------------------------------------------------------------ the table */

static struct question *find(struct resolver *resolver, const char *host)
{
    for (size_t i = 0; i < resolver->question_count; i++) {
        if (slice_equal_nocase(slice_of(resolver->questions[i]->host), slice_of(host))) {
            return resolver->questions[i];
        }
    }
    return NULL;
}

/* An empty place in the table, if need be that of the answer that expires first; NULL when all of them are being asked. */
static struct question *add(struct resolver *resolver, const char *host)
{
    struct question *question = NULL;
    if (resolver->question_count < MAX_QUESTIONS) {
        question = xcalloc(1, sizeof *question);
        resolver->questions[resolver->question_count++] = question;
    } else {
        for (size_t i = 0; i < resolver->question_count; i++) {
            struct question *candidate = resolver->questions[i];
            if (candidate->state == QUESTION_ANSWERED &&
                (question == NULL || candidate->expires_ns < question->expires_ns)) {
                question = candidate;
            }
        }
        if (question == NULL) {
            return NULL;
        }
        free(question->host);
    }
    *question = (struct question){.host = xstrdup(host)};
    return question;
}

static bool is_fresh(const struct question *question)
{
    return question->state == QUESTION_ANSWERED && clock_monotonic_ns() < question->expires_ns;
}

/* ------------------------------------------------------------------------------------------------ questions from loops */

struct resolver *resolver_new(void)
{
    struct resolver *resolver = xcalloc(1, sizeof *resolver);
    reference_init(&resolver->reference);
    pthread_mutex_init(&resolver->mutex, NULL);
    resolver->queue_end = &resolver->queue;
    return resolver;
}

void resolver_free(struct resolver *resolver)
{
    if (resolver == NULL) {
        return;
    }
    pthread_mutex_lock(&resolver->mutex);
    while (resolver->queue != NULL) {
        take_queued(resolver);
    }
    pthread_mutex_unlock(&resolver->mutex);
    release(resolver);
}

bool resolver_cached(struct resolver *resolver, const char *host, uint16_t port,
                     struct resolver_result *result)
{
    struct address address;
    if (address_from_ip(slice_of(host), port, &address)) {
        *result = (struct resolver_result){.count = 1};
        result->addresses[0] = address;
        return true;
    }
    pthread_mutex_lock(&resolver->mutex);
    const struct question *question = find(resolver, host);
    bool known = question != NULL && is_fresh(question);
    if (known) {
        copy_result(result, &question->answer, port);
    }
    pthread_mutex_unlock(&resolver->mutex);
    return known;
}

static void on_answered(void *argument)
{
    struct resolver_query *query = argument;
    query->callback(query->owner, &query->result);
    free(query);
}

struct resolver_query *resolver_start(struct resolver *resolver, struct loop *loop, const char *host,
                                      uint16_t port,
                                      void (*callback)(void *owner, const struct resolver_result *result),
                                      void *owner)
{
    struct resolver_query *query = xcalloc(1, sizeof *query);
    query->resolver = resolver;
    query->loop = loop;
    query->port = port;
    query->callback = callback;
    query->owner = owner;
    query->call = (struct loop_call){.function = on_answered, .argument = query};
    if (host[0] == '\0' || strlen(host) > MAX_NAME_SIZE) {
        error_set(&query->result.error, "cannot resolve %.64s: not a host name", host);
        loop_call_post(loop, &query->call);
        return query;
    }
    if (resolver_cached(resolver, host, port, &query->result)) {
        loop_call_post(loop, &query->call);
        return query;
    }
    pthread_mutex_lock(&resolver->mutex);
    struct question *question = find(resolver, host);
    bool is_new = question == NULL || (question->state == QUESTION_ANSWERED && !is_fresh(question));
    if (question == NULL) {
        question = add(resolver, host);
    }
    if (question == NULL) {
        error_set(&query->result.error, "cannot resolve %s: too many names are being resolved", host);
        loop_call_post(loop, &query->call);
    } else if (!is_new && question->state == QUESTION_ANSWERED) {
        copy_result(&query->result, &question->answer, port);
        loop_call_post(loop, &query->call);
    } else {
        query->question = question;
        query->next = question->waiting;
        if (query->next != NULL) {
            query->next->previous = query;
        }
        question->waiting = query;
        if (is_new) {
            enqueue(resolver, question);
        }
    }
    pthread_mutex_unlock(&resolver->mutex);
    return query;
}

void resolver_cancel(struct resolver_query *query)
{
    if (query == NULL) {
        return;
    }
    pthread_mutex_lock(&query->resolver->mutex);
    if (query->question != NULL) {
        unlink_query(query);
    }
    loop_call_cancel(query->loop, &query->call);
    pthread_mutex_unlock(&query->resolver->mutex);
    free(query);
}
