/*
 * Policies of single sockets, for programs that know kipsec.
 *
 *	ipsec_set_socket_policy(s, "out ipsec esp/transport//require");
 *	ipsec_set_socket_policy(s, "in ipsec esp/transport//require");
 *
 * Policies are written as in ipsec_set_policy(3): a direction, then ipsec with its requests, bypass (for root only), or entrust,
 * which takes a policy away again. Set them before connect or listen; sockets that are accepted have them too.
 *
 * Both functions ask the kipsecd of the network namespace of the process. Programs that call setsockopt(IP_IPSEC_POLICY)
 * themselves run under kipsec-run instead, and need none of this.
 *
 * To use it, copy this file and ipsec_sockopt.c.
 */
#ifndef IPSEC_SOCKOPT_H
#define IPSEC_SOCKOPT_H

#include <stddef.h>

/*
 * Gives socket s a policy. Returns 0, or -1 with errno: ENOENT where no kipsecd runs, EINVAL for a policy that is none, EACCES
 * for a bypass without privilege, EXDEV for a socket of another network namespace, ENOBUFS when sockets have too many different
 * policies.
 */
int ipsec_set_socket_policy(int s, const char *policy);

/*
 * Writes the policy of socket s for a direction, "in" or "out", as a string into buf. Returns 0, or -1 with errno, ERANGE when buf
 * is too small.
 */
int ipsec_get_socket_policy(int s, const char *direction, char *buf, size_t size);

#endif
