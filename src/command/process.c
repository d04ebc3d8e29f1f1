/*
 * process: see process.h. Other threads (the workers when they are idle, the pipelines when they are through) speak to the main thread by loop_post() only.
 */
#include "command/process.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bus/disk_bus.h"
#include "bus/inbox_bus.h"
#include "bus/memory_bus.h"
#include "command/command.h"
#include "command/limits.h"
#include "command/pipelines.h"
#include "command/stats.h"
#include "config/cpu.h"
#include "net/loop.h"
#include "proxy/proxy.h"

#define LONGEST_END_SECONDS    5 /* after shutdown_timeout */
#define MAX_PIPELINES_SHARE_NS (3 * NANOSECONDS_PER_SECOND)

enum process_state { RUNNING, LEAVING, EXCHANGES, PIPELINES, ENDED };

struct process {
    enum process_state state;
    struct config *config;
    const struct config_source *source;
    struct loop *loop;
    struct event *signals;
    int signal_fd;
    struct loop_timer timer; /* ends the current state of the shutdown */
    uint64_t deadline_ns;    /* of the shutdown */

    uint64_t started_ns;
    size_t workers, open_files;
    struct metrics *metrics;
    struct memory_budget capture_budget;
    struct bus *bus;             /* what the workers publish to */
    struct bus *inbox;           /* see pipelines_new() */
    struct pipelines *pipelines; /* none while observability is off */
    size_t lowered_from;         /* limits.max_connections, as it was told; 0: never */
    struct proxy *proxy;
    struct admin *admin; /* NULL: none */
};

static void handled_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

void process_block_signals(void)
{
    sigset_t set;
    handled_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Shutdown ---------------------------------------------------------------------------------------------------------- */

static void enter(struct process *process, enum process_state state)
{
    assert(state > process->state);
    process->state = state;
}

static uint64_t left_ns(const struct process *process)
{
    uint64_t now = clock_monotonic_ns();
    return process->deadline_ns > now ? process->deadline_ns - now : 0;
}

static void end(struct process *process)
{
    enter(process, ENDED);
    loop_stop(process->loop);
}

static void pipelines_done(void *argument)
{
    struct process *process = argument;
    if (process->state == PIPELINES) {
        end(process);
    }
}

/* A signal handler. */
static void give_up(int signal_number)
{
    static const char told[] = "llm-proxy: a pipeline's Lua code, or the disk, does not end; stopped without "
                               "it, and without what was not delivered\n";
    static const char killed[] = "llm-proxy: ended at once by a second signal\n";
    ssize_t written = signal_number == SIGALRM ? write(STDERR_FILENO, told, sizeof told - 1)
                                               : write(STDERR_FILENO, killed, sizeof killed - 1);
    (void)written;
    _exit(EXIT_FAILED);
}

/* Nothing interrupts C code that Lua called (a pattern that backtracks for hours), or a disk that hangs, and whoever ends a pipeline waits for both: if this thread does, the process ends without them. */
static void bound_the_end(uint64_t shutdown_ns)
{
    signal(SIGALRM, give_up);
    alarm((unsigned)(shutdown_ns / NANOSECONDS_PER_SECOND) + LONGEST_END_SECONDS);
}

static void drain_pipelines(struct process *process)
{
    enter(process, PIPELINES);
    bound_the_end(left_ns(process));
    proxy_free(process->proxy); /* what still runs ends now, and publishes its event */
    process->proxy = NULL;
    loop_timer_set(&process->timer, left_ns(process));
    pipelines_drain(process->pipelines, pipelines_done, process);
}

static void exchanges_done(void *argument)
{
    struct process *process = argument;
    if (process->state == EXCHANGES) {
        drain_pipelines(process);
    }
}

/* On a worker's thread. */
static void on_proxy_idle(void *argument)
{
    struct process *process = argument;
    loop_post(process->loop, exchanges_done, process);
}

static void drain_exchanges(struct process *process)
{
    enter(process, EXCHANGES);
    uint64_t timeout_ns = process->config->shutdown_timeout_ns, share_ns = timeout_ns / 10;
    process->deadline_ns = clock_monotonic_ns() + timeout_ns;
    loop_timer_set(&process->timer,
                   timeout_ns - (share_ns < MAX_PIPELINES_SHARE_NS ? share_ns : MAX_PIPELINES_SHARE_NS));
    proxy_drain(process->proxy, on_proxy_idle, process);
}

static void on_timer(void *argument)
{
    struct process *process = argument;
    switch (process->state) {
    case LEAVING:
        drain_exchanges(process);
        break;
    case EXCHANGES:
        log_warn("exchanges that did not end within shutdown_timeout are cut off");
        drain_pipelines(process);
        break;
    case PIPELINES:
        log_warn("pipelines that did not deliver everything within shutdown_timeout are stopped");
        end(process);
        break;
    case RUNNING:
    case ENDED:
        break;
    }
}

static void stop(struct process *process)
{
    if (process->state != RUNNING) {
        log_warn("ended at once by a second signal");
        _exit(EXIT_FAILED);
    }
    log_info("stopping");
    enter(process, LEAVING);
    loop_timer_set(&process->timer, process->config->shutdown_delay_ns);
}

/* Reload ------------------------------------------------------------------------------------------------------------ */

static void lower_max_connections(struct process *process, const struct config *config)
{
    size_t pipelines = config->proxy->observe ? config->pipeline_count : 0;
    size_t possible = limits_connections(process->open_files, process->workers, pipelines);
    size_t wanted = config->proxy->max_connections;
    if (wanted <= possible) {
        process->lowered_from = 0;
        return;
    }
    config->proxy->max_connections = possible;
    if (wanted != process->lowered_from) {
        log_at(config->default_max_connections ? LOG_INFO : LOG_WARN,
               "limits.max_connections is lowered to what the limit of open files allows",
               log_integer("from", (int64_t)wanted), log_integer("to", (int64_t)possible),
               log_integer("open_files", (int64_t)process->open_files));
        process->lowered_from = wanted;
    }
}

static bool changes_fixed_parts(const struct config *before, const struct config *after)
{
    const char *part;
    size_t index = 0;
    bool changes = false;
    while ((part = config_next_fixed_difference(before, after, &index)) != NULL) {
        log_error("configuration not reloaded: a change needs a restart", log_string("key", part));
        changes = true;
    }
    return changes;
}

static void log_faults(const struct buffer *errors)
{
    struct slice rest = buffer_slice(errors), line;
    while (rest.size > 0 && slice_split(&rest, '\n', &line)) {
        log_error("configuration not reloaded", log_slice("error", line));
    }
}

static void reload(struct process *process)
{
    pipelines_reopen_files(process->pipelines);
    struct buffer errors = {0};
    struct error error;
    struct config *config = config_load(process->source, &errors);
    if (config == NULL) {
        log_faults(&errors);
        goto end;
    }
    if (changes_fixed_parts(process->config, config)) {
        config_free(config);
        goto end;
    }
    if (!pipelines_renew(process->pipelines, config, &error)) {
        log_error("configuration not reloaded", log_string("error", error.message));
        config_free(config);
        goto end;
    }
    const struct proxy_settings *before = process->config->proxy;
    config->proxy->generation = before->generation + 1;
    if (config->random_fingerprint_key && process->config->random_fingerprint_key) {
        memcpy(config->proxy->fingerprint_key, before->fingerprint_key, sizeof before->fingerprint_key);
    }
    log_configure(config->log_level, config->log_format);
    lower_max_connections(process, config);
    process->capture_budget.limit = config->proxy->capture_memory;
    if (process->admin != NULL) {
        admin_set_hosts(process->admin, (const char *const *)config->admin_hosts);
    }
    proxy_reload(process->proxy, config->proxy);
    config_free(process->config);
    process->config = config;
    log_info("configuration reloaded", log_integer("routes", (int64_t)config->proxy->route_count),
             log_integer("pipelines", (int64_t)(config->proxy->observe ? config->pipeline_count : 0)));
end:
    buffer_free(&errors);
}

static void on_signal(evutil_socket_t fd, short events, void *argument)
{
    (void)events;
    struct process *process = argument;
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGHUP) {
            stop(process);
        } else if (process->state == RUNNING) {
            reload(process);
        }
    }
}

/* Start ------------------------------------------------------------------------------------------------------------- */

static bool is_ready(void *argument, const char **reason)
{
    const struct process *process = argument;
    if (process->state != RUNNING) {
        *reason = "shutting down";
        return false;
    }
    return bus_is_healthy(process->bus, reason);
}

static void write_stats(void *argument, struct buffer *out)
{
    const struct process *process = argument;
    const char *reason;
    double uptime = (double)(clock_monotonic_ns() - process->started_ns) / (double)NANOSECONDS_PER_SECOND;
    stats_write(process->metrics, uptime, is_ready(argument, &reason) ? NULL : reason, out);
}

static void watch_signals(struct process *process)
{
    sigset_t set;
    handled_signals(&set);
    process->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    process->signals =
        event_new(loop_base(process->loop), process->signal_fd, EV_READ | EV_PERSIST, on_signal, process);
    event_add(process->signals, NULL);
}

static struct bus *start_bus(const struct process *process, struct error *error)
{
    const struct config *config = process->config;
    const struct config_bus *configured = &config->bus;
    if (configured->kind == CONFIG_BUS_MEMORY) {
        return memory_bus_new();
    }
    struct disk_bus_settings settings = {
        .path = configured->path,
        .max_bytes = configured->max_bytes,
        .max_age_ns = configured->max_age_ns,
        .commit_interval_ns = configured->commit_interval_ns,
        .drop_oldest = configured->drop_oldest,
        .queue_events = config->buffer_events,
        .queue_bytes = config->buffer_bytes,
        .metrics = process->metrics,
    };
    struct bus *bus = disk_bus_new(&settings, error);
    if (bus == NULL) {
        error_prefix(error, configured->plugin != NULL ? "observability.bus.queue: " : "observability.bus: ");
    }
    return bus;
}

static bool start_proxy(struct process *process, struct error *error)
{
    const struct config *config = process->config;
    struct proxy_start start = {
        .settings = config->proxy,
        .listen = config->listen,
        .listen_count = config->listen_count,
        .workers = process->workers,
        .bus = process->bus,
        .metrics = process->metrics,
        .capture_budget = &process->capture_budget,
    };
    process->proxy = proxy_new(&start, error);
    return process->proxy != NULL;
}

static bool start_admin(struct process *process, struct error *error)
{
    const struct config *config = process->config;
    if (!config->has_admin) {
        return true;
    }
    struct admin_settings settings = {
        .loop = process->loop,
        .address = config->admin,
        .token = config->admin_token,
        .hosts = (const char *const *)config->admin_hosts,
        .metrics = process->metrics,
        .is_ready = is_ready,
        .write_stats = write_stats,
        .argument = process,
    };
    process->admin = admin_new(&settings, error);
    if (process->admin == NULL) {
        error_prefix(error, "admin: ");
    }
    return process->admin != NULL;
}

static void log_start(const struct process *process)
{
    const struct config *config = process->config;
    char address[ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < config->proxy->route_count; i++) {
        const struct route *route = &config->proxy->routes[i];
        log_info("route", log_string("name", route->name), log_string("prefix", route->configured_prefix),
                 log_string("upstream", route->upstream));
    }
    for (size_t i = 0; config->proxy->observe && i < config->pipeline_count; i++) {
        const struct config_pipeline *pipeline = &config->pipelines[i];
        log_info("pipeline", log_string("name", pipeline->name),
                 log_string("transforms", pipeline->transforms[0] != '\0' ? pipeline->transforms : "none"),
                 log_string("dispatcher", pipeline->dispatcher));
    }
    if (!config->proxy->observe) {
        log_info("observability is off: no events are made");
    } else if (config->random_fingerprint_key) {
        log_info("fingerprints of credentials are made with a random key: set observability.fingerprint_key "
                 "to compare them beyond this process");
    }
    if (process->admin != NULL) {
        address_format(admin_address(process->admin), address);
        log_info("admin is listening", log_string("address", address));
    }
    for (size_t i = 0; i < config->listen_count; i++) {
        address_format(proxy_address(process->proxy, i), address);
        log_info("listening", log_string("address", address),
                 log_integer("workers", (int64_t)process->workers));
    }
}

struct process *process_start(struct config *config, const struct config_source *source, int *status)
{
    struct error error;
    struct process *process = xcalloc(1, sizeof *process);
    process->config = config;
    process->source = source;
    process->signal_fd = -1;
    process->started_ns = clock_monotonic_ns();
    process->loop = loop_new();
    loop_timer_init(&process->timer, process->loop, on_timer, process);
    process->metrics = metrics_new();
    process->workers = config->workers != 0 ? config->workers : cpu_count();
    process->open_files = limits_raise_open_files();
    process->capture_budget.limit = config->proxy->capture_memory;
    log_configure(config->log_level, config->log_format);
    log_info("llm-proxy", log_string("version", LLM_PROXY_VERSION),
             log_string("config", config->file != NULL ? config->file : "none"));
    for (char **warning = config->warnings; *warning != NULL; warning++) {
        log_warn(*warning);
    }
    lower_max_connections(process, config);

    *status = EXIT_FAILED;
    process->bus = start_bus(process, &error);
    if (process->bus == NULL) {
        goto fail;
    }
    process->inbox = config->bus.plugin != NULL ? inbox_bus_new() : NULL;
    process->pipelines = pipelines_new(process->loop, process->metrics, process->bus, process->inbox);
    *status = EXIT_USAGE; /* pipelines fail by configuration, the rest by the system */
    if (!pipelines_renew(process->pipelines, config, &error)) {
        goto fail;
    }
    *status = EXIT_FAILED;
    if (!start_proxy(process, &error) || !start_admin(process, &error)) {
        goto fail;
    }
    watch_signals(process);
    log_start(process);
    return process;

fail:
    command_error("%s", error.message);
    process_free(process);
    return NULL;
}

/* What is left is to join threads: a second signal is not waited for by the loop any more. */
static void end_at_signals(void)
{
    sigset_t set;
    handled_signals(&set);
    sigdelset(&set, SIGHUP);
    signal(SIGTERM, give_up);
    signal(SIGINT, give_up);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void process_run(struct process *process)
{
    loop_run(process->loop);
    assert(process->state == ENDED);
    bound_the_end(0);
    end_at_signals();
}

void process_free(struct process *process)
{
    if (process->proxy != NULL) {
        proxy_free(process->proxy);
    }
    if (process->pipelines != NULL) {
        pipelines_free(process->pipelines);
    }
    bus_free(process->inbox);
    bus_free(process->bus);
    if (process->admin != NULL) {
        admin_free(process->admin);
    }
    metrics_free(process->metrics);
    if (process->signals != NULL) {
        event_free(process->signals);
        close(process->signal_fd);
    }
    loop_timer_release(&process->timer);
    loop_free(process->loop);
    config_free(process->config);
    free(process);
}
