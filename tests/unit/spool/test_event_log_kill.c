/* A writer killed at any moment: what it had reported as written is there, whole, and nothing else is. */
#include "spool_test.h"

#include <signal.h>
#include <sys/wait.h>

#define MOST 600

/* Writes until it is killed, and tells after each write the sequence of the last record. */
static void write_and_report(int report)
{
    static char payloads[30][MAX_TEST_PAYLOAD];
    struct event_log_recovery recovery;
    struct error error;
    struct event_log *log =
        event_log_open(&(struct event_log_settings){log_folder, 30000, 0}, &recovery, &error);
    for (uint64_t round = 0; log != NULL; round++) {
        size_t staged = 0, batch = 1 + mix(round) % 30;
        while (staged < batch && stage(log, MOST, payloads[staged]))
            staged++;
        if (event_log_write(log) != EVENT_LOG_DONE)
            break;
        uint64_t last = event_log_last(log);
        if (write(report, &last, sizeof last) != sizeof last)
            break;
        if (mix(round) % 11 == 0 && event_log_retire(log, last) != EVENT_LOG_DONE)
            break;
        if (staged < batch && event_log_rotate(log) != EVENT_LOG_DONE)
            break;
        if (mix(round) % 7 == 0)
            event_log_unlink_before(log, last > 200 ? last - 200 : 0);
    }
    _exit(1);
}

static void nothing_reported_is_missing_after_a_kill(void **state)
{
    (void)state;
    const char *cycles = getenv("LLM_PROXY_LONG_TESTS") != NULL ? "1000" : "30";
    uint64_t reported = 0;
    for (long cycle = 0; cycle < strtol(cycles, NULL, 10); cycle++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0) {
            close(pipes[0]);
            write_and_report(pipes[1]);
        }
        close(pipes[1]);
        /* After that many reports, and a moment in which it may do anything. */
        size_t wanted = mix((uint64_t)cycle) % 40;
        uint64_t last;
        while (wanted-- > 0 && read(pipes[0], &last, sizeof last) == sizeof last)
            reported = last;
        usleep((useconds_t)(mix((uint64_t)cycle * 3) % 2000));
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        while (read(pipes[0], &last, sizeof last) == sizeof last)
            reported = last;
        close(pipes[0]);

        struct event_log_recovery recovery;
        struct event_log *log = open_log_with(30000, &recovery);
        assert_int_equal(recovery.damaged_records, 0);
        assert_int_equal(recovery.damaged_segments, 0);
        assert_true(event_log_last(log) >= reported);
        struct seen seen = read_all(MOST);
        assert_int_equal(seen.missing, 0);
        assert_int_equal(seen.records, event_log_last(log) + 1 - event_log_first(log));
        assert_true(seen.records == 0 || seen.last == event_log_last(log));
        reported = event_log_last(log);
        event_log_close(log);
    }
    assert_true(reported > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPOOL_TEST(nothing_reported_is_missing_after_a_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
