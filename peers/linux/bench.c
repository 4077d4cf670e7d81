/*
 * The init of a Linux that is measured beside Nearfield: a static program that times what maps to Nearfield's rows, prints one line for
 * each, and switches the machine off. `cargo xtask peers linux` builds it, boots it and reads the lines.
 *
 * Line: `peer CASE BATCH SAMPLES MIN MEDIAN P99`, figures in thousandths of a clock tick for one operation, the cost of an empty window
 * subtracted. Under -icount a tick is one guest instruction.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SAMPLES = 200, WARM_UP = 20, PAGE = 4096 };

typedef void (*work)(void);

static uint64_t overhead;

static inline uint64_t now(void)
{
	uint32_t low, high;
	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static void die(const char *what)
{
	printf("peer-error %s: %s\n", what, strerror(errno));
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static void check(long result, const char *what)
{
	if (result < 0)
		die(what);
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void measure_overhead(void)
{
	overhead = UINT64_MAX;
	for (int i = 0; i < 1000; i++) {
		uint64_t start = now(), cost = now() - start;
		if (cost < overhead)
			overhead = cost;
	}
}

/* Times `calls` of `operation` per sample, each of which is `each` operations; `before` prepares each sample untimed. */
static void row_of(const char *name, int calls, int each, work before, work operation)
{
	static uint64_t samples[SAMPLES];

	for (int i = -WARM_UP; i < SAMPLES; i++) {
		if (before)
			before();
		uint64_t start = now();
		for (int j = 0; j < calls; j++)
			operation();
		uint64_t ticks = now() - start;
		ticks = ticks > overhead ? ticks - overhead : 0;
		if (i >= 0)
			samples[i] = ticks * 1000 / (calls * each);
	}
	qsort(samples, SAMPLES, sizeof *samples, ascending);
	printf("peer %s %d %d %llu %llu %llu\n", name, calls * each, SAMPLES,
	       (unsigned long long)samples[0], (unsigned long long)samples[SAMPLES / 2],
	       (unsigned long long)samples[SAMPLES * 99 / 100]);
	fflush(stdout);
}

static void row(const char *name, int calls, work before, work operation)
{
	row_of(name, calls, 1, before, operation);
}

static void null_call(void)
{
	syscall(SYS_getppid);
}

static void yield(void)
{
	sched_yield();
}

/* Another thread or process that does nothing but what `body` says, until it is killed or the machine is switched off. */
static pid_t companion(work body)
{
	pid_t child = fork();
	check(child, "fork");
	if (child == 0)
		for (;;)
			body();
	return child;
}

static void dismiss(pid_t child)
{
	check(kill(child, 9), "kill");
	check(waitpid(child, NULL, 0), "waitpid");
}

static volatile int yielding = 1;

static void *yielder(void *unused)
{
	(void)unused;
	while (yielding)
		sched_yield();
	return NULL;
}

/* Each of our yields is a switch to the other and a switch back: two operations. */
static void switches(void)
{
	pthread_t thread;

	check(-pthread_create(&thread, NULL, yielder, NULL), "pthread_create");
	row_of("ctx.switch/space=same,fpu=off,with=sched_yield", 50, 2, NULL, yield);
	yielding = 0;
	pthread_join(thread, NULL);
	pid_t child = companion(yield);
	row_of("ctx.switch/space=other,fpu=off,with=sched_yield", 50, 2, NULL, yield);
	dismiss(child);
}

static int there[2], back[2];
static char message[64];

static void echo_event(void)
{
	uint64_t value;

	check(read(there[0], &value, sizeof value), "read");
	check(write(back[0], &value, sizeof value), "write");
}

static void ask_event(void)
{
	uint64_t value = 1;

	check(write(there[0], &value, sizeof value), "write");
	check(read(back[0], &value, sizeof value), "read");
}

static void echo_bytes(void)
{
	char bytes[64];

	check(read(there[0], bytes, sizeof bytes), "read");
	check(write(back[1], bytes, sizeof bytes), "write");
}

static void ask_bytes(void)
{
	check(write(there[1], message, sizeof message), "write");
	check(read(back[0], message, sizeof message), "read");
}

static void close_ends(void)
{
	close(there[0]);
	close(there[1]);
	close(back[0]);
	close(back[1]);
}

static void round_trips(void)
{
	check(there[0] = eventfd(0, 0), "eventfd");
	check(back[0] = eventfd(0, 0), "eventfd");
	there[1] = back[1] = -1;
	pid_t child = companion(echo_event);
	row("ipc.rt/words=0,caps=0,space=other,with=eventfd", 20, NULL, ask_event);
	dismiss(child);
	close_ends();

	check(pipe(there), "pipe");
	check(pipe(back), "pipe");
	child = companion(echo_bytes);
	row("ipc.rt/words=8,caps=0,space=other,with=pipe", 20, NULL, ask_bytes);
	dismiss(child);
	close_ends();

	int first[2], second[2];
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, first), "socketpair");
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, second), "socketpair");
	there[0] = first[0], there[1] = first[1], back[0] = second[0], back[1] = second[1];
	child = companion(echo_bytes);
	row("ipc.rt/words=8,caps=0,space=other,with=unix", 20, NULL, ask_bytes);
	dismiss(child);
	close_ends();
}

static uint32_t word;

static void futex_wake(void)
{
	check(syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), "futex");
}

static int event;

static void event_signal(void)
{
	uint64_t one = 1;

	check(write(event, &one, sizeof one), "write");
}

static void event_drain(void)
{
	uint64_t value = 1;

	check(write(event, &value, sizeof value), "write");
	check(read(event, &value, sizeof value), "read");
}

static char *area, *cursor;

static void fresh_page(void)
{
	if (area)
		munmap(area, 64 * PAGE);
	area = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		die("mmap");
	madvise(area, 64 * PAGE, MADV_NOHUGEPAGE);
	/* The page tables are there already: the fault alone is timed. */
	area[0] = 1;
	cursor = area + PAGE;
}

static void touch(void)
{
	*(volatile char *)cursor = 1;
	cursor += PAGE;
}

/* A page of its own between holes, so that no call has to split or merge areas: the least that Linux can be asked. */
static char *lone;

static void lone_hole(void)
{
	if (!lone) {
		lone = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (lone == MAP_FAILED)
			die("mmap");
		lone += PAGE;
	}
	check(munmap(lone - PAGE, 3 * PAGE), "munmap");
}

static void map_page(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_FIXED;

	if (mmap(lone, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		die("mmap");
}

static void lone_page(void)
{
	lone_hole();
	map_page();
}

static void unmap_page(void)
{
	check(munmap(lone, PAGE), "munmap");
}

static void protect_page(void)
{
	check(mprotect(lone, PAGE, PROT_READ), "mprotect");
}

static void *nothing(void *unused)
{
	return unused;
}

static void thread_life(void)
{
	pthread_t thread;

	check(-pthread_create(&thread, NULL, nothing, NULL), "pthread_create");
	pthread_join(thread, NULL);
}

static void fork_life(void)
{
	pid_t child = fork();
	check(child, "fork");
	if (child == 0)
		_exit(0);
	check(waitpid(child, NULL, 0), "waitpid");
}

static void spawn_life(void)
{
	char *arguments[] = { "/leave", NULL };
	pid_t child;

	check(-posix_spawn(&child, "/leave", NULL, NULL, arguments, NULL), "posix_spawn");
	check(waitpid(child, NULL, 0), "waitpid");
}

int main(void)
{
	struct utsname name;

	setvbuf(stdout, NULL, _IOLBF, 0);
	check(uname(&name), "uname");
	printf("peer-system %s %s\n", name.sysname, name.release);
	measure_overhead();
	row("sys.null/with=getppid", 100, NULL, null_call);
	row("sched.yield/with=sched_yield", 100, NULL, yield);
	switches();
	round_trips();
	row("ntfn.signal/waiter=none,with=futex", 100, NULL, futex_wake);
	check(event = eventfd(0, 0), "eventfd");
	row("ntfn.signal/waiter=none,with=eventfd", 100, NULL, event_signal);
	event_drain();
	row("fault.user/of=zero,with=touch", 32, fresh_page, touch);
	row("vm.map/pages=1,kib=4,with=mmap-populate", 1, lone_hole, map_page);
	row("vm.unmap/pages=1,kib=4,with=munmap", 1, lone_page, unmap_page);
	row("vm.protect/pages=1,kib=4,with=mprotect", 1, lone_page, protect_page);
	row("thread.life/with=pthread", 1, NULL, thread_life);
	row("process.life/with=fork", 1, NULL, fork_life);
	row("process.life/with=posix_spawn", 1, NULL, spawn_life);
	printf("peer-done\n");
	fflush(stdout);
	reboot(RB_AUTOBOOT);
	return 1;
}
