/* Sends datagrams back (serve), sends one and waits for the answer (ask), or does both (self). */

#include <sys/types.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <netinet/in.h>
#include <arpa/inet.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONGEST	512

/* A socket on the loopback interface at a port (0: any), and the address it got. */
static int
open_socket(unsigned port, struct sockaddr_in *address)
{
	struct timeval patience = { 3, 0 };
	socklen_t length = sizeof(*address);
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	address->sin_port = htons((unsigned short)port);
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (s == -1 || bind(s, (struct sockaddr *)address, length) == -1 ||
	    getsockname(s, (struct sockaddr *)address, &length) == -1 ||
	    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == -1) {
		perror("pingpong");
		exit(71);
	}
	return s;
}

/* Sends one datagram back; 0 if none came. */
static int
answer(int s)
{
	struct sockaddr_in from;
	socklen_t length = sizeof(from);
	char text[LONGEST];
	ssize_t got = recvfrom(s, text, sizeof(text), 0, (struct sockaddr *)&from, &length);

	return got >= 0 && sendto(s, text, (size_t)got, 0, (struct sockaddr *)&from, length) == got;
}

static void
send_text(int s, const struct sockaddr_in *to, const char *text)
{
	if (sendto(s, text, strlen(text), 0, (const struct sockaddr *)to, sizeof(*to)) == -1) {
		perror("pingpong");
		exit(71);
	}
}

static int
print_answer(int s)
{
	char text[LONGEST + 1];
	ssize_t got = recv(s, text, LONGEST, 0);

	if (got < 0) {
		fprintf(stderr, "pingpong: no answer\n");
		return 69;
	}
	text[got] = '\0';
	puts(text);
	return 0;
}

int
main(int argc, char **argv)
{
	struct sockaddr_in here, there;
	int client, server;

	if (argc == 3 && strcmp(argv[1], "serve") == 0) {
		server = open_socket((unsigned)atoi(argv[2]), &here);
		for (;;)
			(void)answer(server);
	}
	if (argc == 4 && strcmp(argv[1], "ask") == 0) {
		client = open_socket(0, &here);
		there = here;
		there.sin_port = htons((unsigned short)atoi(argv[2]));
		send_text(client, &there, argv[3]);
		return print_answer(client);
	}
	if (argc == 2 && strcmp(argv[1], "self") == 0) {
		server = open_socket(0, &there);
		client = open_socket(0, &here);
		send_text(client, &there, "pong");
		return answer(server) ? print_answer(client) : 69;
	}
	fprintf(stderr, "usage: pingpong serve port | ask port text | self\n");
	return 64;
}
