/* See ipsec_sockopt.h. */
#include "ipsec_sockopt.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OP_SET = 3, OP_GET = 4, HEADER = 4, LARGEST = 8192 };

/* serves says whether the kipsecd whose directory is dir serves the network namespace. */
static int
serves(const char *dir, const struct stat *ns)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	unsigned long long dev, ino;
	FILE *f;
	int n;

	n = snprintf(path, sizeof(path), "%s/netns", dir);
	if (n < 0 || (size_t)n >= sizeof(path) || (f = fopen(path, "re")) == NULL)
		return 0;
	n = fscanf(f, "%llu:%llu", &dev, &ino);
	fclose(f);
	return n == 2 && dev == ns->st_dev && ino == ns->st_ino;
}

/* reach connects to the kipsecd of this namespace that is among the directories in root. */
static int
reach(const char *root)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 10 };
	struct stat ns, st;
	struct dirent *e;
	DIR *d;
	char dir[sizeof(name.sun_path)];
	int c = -1, n;

	if (stat("/proc/self/ns/net", &ns) != 0 || stat(root, &st) != 0 || (d = opendir(root)) == NULL)
		return -1;
	while (c < 0 && (st.st_uid == 0 || st.st_uid == geteuid()) && (e = readdir(d)) != NULL) {
		n = snprintf(dir, sizeof(dir), "%s/%s", root, e->d_name);
		if (n < 0 || (size_t)n >= sizeof(dir) || !serves(dir, &ns))
			continue;
		n = snprintf(name.sun_path, sizeof(name.sun_path), "%s/sockopt", dir);
		if (n < 0 || (size_t)n >= sizeof(name.sun_path))
			continue;
		c = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (c >= 0 && connect(c, (struct sockaddr *)&name, sizeof(name)) != 0) {
			close(c);
			c = -1;
		}
	}
	closedir(d);
	if (c >= 0)
		(void)setsockopt(c, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return c;
}

/* ask sends an operation about s and returns the length of the answer behind its header, or -1. */
static ssize_t
ask(int s, unsigned char op, const char *text, char *answer)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	unsigned char header[HEADER] = { op, 0, 0, 0 };
	struct iovec part[2] = { { header, HEADER }, { (void *)(uintptr_t)text, strlen(text) } };
	struct msghdr m = { .msg_iov = part, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *rights;
	const char *user = getenv("XDG_RUNTIME_DIR");
	char root[512];
	int32_t error;
	ssize_t n;
	int c;

	c = reach("/run/kipsec");
	if (c < 0 && user != NULL && user[0] == '/' && (size_t)snprintf(root, sizeof(root), "%s/kipsec", user) < sizeof(root))
		c = reach(root);
	if (c < 0) {
		errno = ENOENT;
		return -1;
	}
	memset(&control, 0, sizeof(control));
	rights = CMSG_FIRSTHDR(&m);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &s, sizeof(int));
	n = sendmsg(c, &m, MSG_NOSIGNAL);
	if (n >= 0)
		n = recv(c, answer, LARGEST, 0);
	error = errno;
	close(c);
	if (n < 0) {
		errno = error;
		return -1;
	}
	if (n < HEADER) {
		errno = EBADMSG;
		return -1;
	}
	memcpy(&error, answer, sizeof(error));
	if (error != 0) {
		errno = error;
		return -1;
	}
	return n - HEADER;
}

int
ipsec_set_socket_policy(int s, const char *policy)
{
	char answer[LARGEST];

	return ask(s, OP_SET, policy, answer) < 0 ? -1 : 0;
}

int
ipsec_get_socket_policy(int s, const char *direction, char *buf, size_t size)
{
	char answer[LARGEST];
	ssize_t n = ask(s, OP_GET, direction, answer);

	if (n < 0)
		return -1;
	if ((size_t)n >= size) {
		errno = ERANGE;
		return -1;
	}
	memcpy(buf, answer + HEADER, n);
	buf[n] = '\0';
	return 0;
}
