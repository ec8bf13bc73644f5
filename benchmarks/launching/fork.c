/* The limit of fork, without any Python: fork, _exit, wait.
 *
 *   fork MEGABYTES SECONDS IN_FLIGHT IDLE
 *
 * fork copies the page tables of private writable memory, so its cost grows with that; the
 * process first makes about as much as the zygote has. Then it measures calls one after another, the
 * rate with IN_FLIGHT children, and holds IDLE children while somebody looks at the memory: each
 * "look" line it prints waits for a line in answer. Last come the figures, as JSON.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define MOST_CALLS 500

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static pid_t fork_or_die(void)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    return pid;
}

static void reap_one(void)
{
    int status;
    if (wait(&status) < 0 || status != 0)
        die("a child did not succeed");
}

static void *map(size_t size, int kind)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static void let_look(void)
{
    puts("look");
    fflush(stdout);
    if (getchar() == EOF)
        exit(1);
}

static void print_list(const char *name, const int64_t *values, int count)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%lld", i ? ", " : "", (long long)values[i]);
    printf("], ");
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    size_t size = (size_t)atoi(argv[1]) << 20;
    double seconds = atof(argv[2]);
    int in_flight = atoi(argv[3]), idle = atoi(argv[4]);

    char *memory = map(size, MAP_PRIVATE);
    madvise(memory, size, MADV_NOHUGEPAGE); /* a Python heap has small pages */
    memset(memory, 1, size);
    volatile int64_t *stamp = map(sizeof *stamp, MAP_SHARED);

    static int64_t returns[MOST_CALLS], starts[MOST_CALLS];
    int calls = 0;
    for (int64_t end = now() + (int64_t)(seconds * 1e9); calls < MOST_CALLS && now() < end; calls++) {
        int64_t before = now();
        if (fork_or_die() == 0) {
            *stamp = now();
            _exit(0);
        }
        returns[calls] = now() - before;
        reap_one();
        starts[calls] = *stamp - before;
    }

    int64_t began = now(), end = began + (int64_t)(seconds * 1e9);
    long jobs = 0, running = 0;
    while (now() < end) {
        if (running >= in_flight) {
            reap_one();
            running--;
        }
        if (fork_or_die() == 0)
            _exit(0);
        running++;
        jobs++;
    }
    while (running-- > 0)
        reap_one();
    double rate = jobs / ((now() - began) / 1e9);

    let_look();
    pid_t children[64];
    for (int i = 0; i < idle && i < 64; i++) {
        children[i] = fork_or_die();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
    }
    let_look();
    for (int i = 0; i < idle && i < 64; i++)
        kill(children[i], SIGKILL);
    while (wait(NULL) > 0)
        ;

    printf("{");
    print_list("return", returns, calls);
    print_list("start", starts, calls);
    printf("\"rate\": %f}\n", rate);
    return 0;
}
