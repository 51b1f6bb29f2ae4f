/*
 * A program with policies on its socket: ipsec_sockopt_example 4|6 POLICY... prints what becomes of each, and what the socket has
 * then. Build it with cc -o example ipsec_sockopt_example.c ipsec_sockopt.c
 */
#include "ipsec_sockopt.h"

#include <sys/socket.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

int
main(int argc, char **argv)
{
	char in[200], out[200], tiny[4];
	int s = socket(argc > 1 && argv[1][0] == '6' ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
	int i;

	for (i = 2; i < argc; i++)
		printf("%s: %s\n", argv[i], ipsec_set_socket_policy(s, argv[i]) == 0 ? "ok" : strerror(errno));
	if (ipsec_get_socket_policy(s, "in", in, sizeof(in)) != 0 || ipsec_get_socket_policy(s, "out", out, sizeof(out)) != 0) {
		perror("ipsec_get_socket_policy");
		return 1;
	}
	printf("%s, %s\n", in, out);
	if (ipsec_get_socket_policy(s, "in", tiny, sizeof(tiny)) == 0 || errno != ERANGE)
		printf("a small buffer was not noticed\n");
	return 0;
}
