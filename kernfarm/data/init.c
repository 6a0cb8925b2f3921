/*
 * The guest's first and only program: says that user space is up, loads modules, hands over to a shell where there is one, powers off.
 *
 * Static, so that a guest of any architecture needs nothing but a compiler for it. /kernfarm/modules names what to load, in order, one
 * a line: NAME PATH. NAME is - for what others need, PATH is - for what is built into the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void load(const char *name, const char *path)
{
	if (strcmp(path, "-") != 0) {
		int file = open(path, O_RDONLY | O_CLOEXEC);

		if (file < 0 || (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST)) {
			printf("kernfarm: failed %s: %s\n", strcmp(name, "-") ? name : path, strerror(errno));
			return;
		}
		close(file);
	}
	if (strcmp(name, "-") != 0)
		printf("kernfarm: loaded %s\n", name);
}

static void load_all(void)
{
	char name[256], path[1024];
	FILE *list = fopen("/kernfarm/modules", "re");

	if (list == NULL)
		return;
	while (fscanf(list, "%255s %1023s", name, path) == 2)
		load(name, path);
	fclose(list);
}

static void shell(void)
{
	pid_t child = fork();

	if (child == 0) {
		execl("/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; exec setsid cttyhack sh", NULL);
		_exit(127);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
}

int main(void)
{
	struct utsname kernel;

	/* Lines as they come: the kernel writes to the same console. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	/* A kernel may lack any of these file systems; modules and shell then do without. */
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mkdir("/sys", 0755);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mkdir("/dev", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mkdir("/tmp", 0755);
	uname(&kernel);
	printf("kernfarm: user space is up, Linux %s\n", kernel.release);
	load_all();
	if (access("/bin/busybox", X_OK) == 0)
		shell();
	printf("kernfarm: done\n");
	/* Until the serial port has sent everything: a reboot would cut the last line off. */
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
	return 1;
}
