/*
 * cpu: quotas from cgroup folders as the kernel writes them.
 */
#include "fixture.h"

#include "config/cpu.h"

static void a_quota_of_version_2_is_found_along_the_path(void **state)
{
    (void)state;
    write_file("two/cpu.max", "max 100000\n");
    write_file("two/a/cpu.max", "150000 100000\n");
    write_file("two/a/b/cpu.max", "400000 100000\n");
    assert_true(cpu_quota(path_of("two"), "0::/a/b\n") == 1.5);
    assert_true(cpu_quota(path_of("two"), "0::/\n") == 0);
}

static void a_path_that_cannot_be_seen_leads_to_the_root(void **state)
{
    (void)state;
    write_file("root/cpu.max", "50000 100000\n");
    assert_true(cpu_quota(path_of("root"), "0::/of/the/host\n") == 0.5);
}

static void a_quota_of_version_1_is_read(void **state)
{
    (void)state;
    write_file("one/cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n");
    write_file("one/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    write_file("one/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    write_file("one/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_true(cpu_quota(path_of("one"), "4:memory:/x\n3:cpu,cpuacct:/x\n") == 2.5);
    assert_true(cpu_quota(path_of("one"), "3:cpu,cpuacct:/\n") == 0);
}

static void no_quota_is_no_limit(void **state)
{
    (void)state;
    assert_true(cpu_quota(path_of("nowhere"), "0::/a\n") == 0);
    assert_true(cpu_quota(path_of("nowhere"), "junk\n\n::\n") == 0);
    assert_true(cpu_count() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quota_of_version_2_is_found_along_the_path),
        cmocka_unit_test(a_path_that_cannot_be_seen_leads_to_the_root),
        cmocka_unit_test(a_quota_of_version_1_is_read),
        cmocka_unit_test(no_quota_is_no_limit),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
