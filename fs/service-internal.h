/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The node service inside. One thread, one epoll; whatever can block (looking at
 * a caller's path, reading an image, mounting, unmounting) is done by a job: a
 * forked child that talks with the service over a socket, and dies with it.
 *
 *	service.c             sockets, signals, time, start and end
 *	service-connection.c  clients: who they are, their calls and answers
 *	service-methods.c     the methods that need no job of their own
 *	service-job.c         forked children
 *	service-open.c        Open, as the service sees it
 *	service-change.c      Swap and AddLayer likewise
 *	service-opener.c      the same in the child
 *	service-close.c       the end of views
 *	service-images.c      mounts of images: started, shared, ended
 *	service-keepers.c     what serves them
 *	service-learn.c       what is learned of them
 *	service-views.c       the list of views, and their leases
 *	service-restore.c     what an earlier service left
 *	service-report.c      JSON about all of it, metrics, log lines
 *
 * Nothing is freed while events are handled: connections, views and jobs that
 * have ended are swept at the end of each round.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lease.h"
#include "thaw/catalogue.h"
#include "thaw/error.h"
#include "thaw/service.h"
#include "varlink.h"

#define SERVICE_INTERFACE "io.thaw.Node"

/* Bounds, so that no client can use the service up. */
#define SERVICE_CONNECTIONS_MAX	 512u
#define SERVICE_CONNECTIONS_USER 64u /* of one ordinary user */
#define SERVICE_VIEWS_MAX	 4096u
#define SERVICE_VIEWS_USER	 512u
#define SERVICE_REGISTERED_MAX	 4096u /* archives, by ordinary users, in one run */
#define SERVICE_JOBS_MAX	 128u  /* at a time; beyond it, calls are refused */
#define SERVICE_JOBS_USER	 64u   /* of one ordinary user */
#define SERVICE_JOBS_ROOT	 32u   /* that ordinary users cannot take */
#define SERVICE_GRACE		 60u   /* seconds that a lost connection's views stay */
#define SERVICE_LINGER		 10u   /* seconds that an unused image stays mounted */

struct service;
struct connection;
struct view;
struct image;
struct job;

/* -- events -- */

struct source {
	int fd;
	void (*ready)(struct source *source, uint32_t events);
	struct service *service;
};
_must_check_ int source_add(struct service *service, struct source *source, int fd,
			    uint32_t events,
			    void (*ready)(struct source *source, uint32_t events));
void source_change(struct source *source, uint32_t events);
void source_remove(struct source *source); /* does not close it */

/* -- clients -- */

struct connection {
	struct source source; /* first */
	struct connection *next;
	struct service *service;
	struct thaw_varlink stream;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	gid_t *groups;
	unsigned group_count;
	bool privileged; /* root, or the service's own user */
	bool ended;	 /* will send no more */
	bool gone;	 /* to be swept */

	/* The call that is being answered; the next one waits until it is. */
	bool busy;
	struct thaw_varlink_call call;
	struct thaw_varlink_message message;
	bool watching;
};

int connections_listen(struct service *service, const char *path, struct thaw_error *err);
void connections_sweep(struct service *service);
/* Answers. Each ends the call; parameters are taken. */
void connection_reply(struct connection *connection, json_t *parameters);
void connection_reply_fds(struct connection *connection, json_t *parameters,
			  const int *fds, unsigned count);
void connection_error(struct connection *connection, const char *name,
		      json_t *parameters);
/* The error of a failed call in the protocol's terms. */
void connection_fail(struct connection *connection, int r, const struct thaw_error *err);
/* "io.thaw.Node.NAME" with a reason. */
void connection_refuse(struct connection *connection, const char *name,
		       const char *format, ...) _printf_(3, 4);
/* One of a stream of answers; the call goes on. */
void connection_stream(struct connection *connection, json_t *parameters);

/* Parameters of a call: what is wrong is answered here (then -EINVAL). */
enum parameter_type {
	PARAMETER_STRING, /* const char ** */
	PARAMETER_BOOL,	  /* bool * */
	PARAMETER_NUMBER, /* int64_t *, not negative */
	PARAMETER_OBJECT, /* json_t ** */
	PARAMETER_ARRAY,  /* json_t ** */
	PARAMETER_FD,	  /* int *: index of a descriptor of the message; given away */
};
struct parameter {
	const char *name;
	enum parameter_type type;
	bool required;
	void *value;
};
_must_check_ int connection_parameters(struct connection *connection, json_t *object,
				       const struct parameter *list, unsigned count);
#define PARAMETERS(connection, ...)                                               \
	connection_parameters(connection, (connection)->call.parameters,          \
			      (const struct parameter[]){ __VA_ARGS__ },          \
			      sizeof((const struct parameter[]){ __VA_ARGS__ }) / \
				      sizeof(struct parameter))
/* Invalid value of a parameter: answers, and returns -EINVAL. */
int connection_invalid(struct connection *connection, const char *parameter);

/* -- jobs -- */

enum job_message_kind {
	JOB_FOUND = 1, /* to the service: the caller's path and images are these */
	JOB_PREPARED,  /* the directory stands, the scratch layer too */
	JOB_WANT,     /* the mount of image `number`; identities[0]: its index's digest */
	JOB_LAUNCHED, /* it was launched, or could not be */
	JOB_INDEX,    /* the index of image `number`, for later jobs: a descriptor */
	JOB_DONE,
	JOB_GO,	   /* to the job: the directory is reserved for it */
	JOB_READY, /* the image is mounted at path; with its index, if that is known */
	/* It is to be mounted at path, by this job; value: learn; fd: what was learned. */
	JOB_LAUNCH,
};

#define JOB_PATH 4096u

/* As it is, between a process and its fork. */
struct job_message {
	enum job_message_kind kind;
	int result;
	struct thaw_error err;
	unsigned number;
	uint8_t identities[1 + THAW_LAYERS_MAX][THAW_DIGEST_SIZE];
	bool made; /* of READY: the image needs no layer; of a check: it may be served */
	uint64_t value;
	char device[32];
	char path[JOB_PATH];
	char more[JOB_PATH];
};

struct job {
	struct source source; /* first */
	struct job *next;
	struct service *service;
	pid_t pid;
	const char *what;	       /* for the log */
	struct connection *connection; /* to be answered; NULL: nobody, or gone */
	struct view *view;
	struct image *image;			   /* that it launches, or ends */
	struct image *images[1 + THAW_LAYERS_MAX]; /* in use for the view to be */
	struct request *request;		   /* of service-open.c */
	struct closing *closing;		   /* of service-close.c */
	/* What it waits for before it is answered. */
	struct view *waits_for_view;
	struct image *waits_for_image;
	unsigned wanted; /* number of the image that it waits for */
	uint8_t index_digest[THAW_DIGEST_SIZE]; /* of that image */
	bool done;				/* has said DONE */
	bool ended;				/* to be swept */
	/* fd: descriptor that came with it, or -1; taken by setting *fd to -1. */
	void (*message)(struct job *job, const struct job_message *message, int *fd);
	void (*end)(struct job *job); /* the process has ended, or will say no more */
};

/*
 * Fork: run() is the child, its result the exit code. keep: descriptors that the
 * child needs, besides the socket.
 */
_must_check_ int job_start(struct service *service, struct job *job,
			   int (*run)(struct job *job, int socket), const int *keep,
			   unsigned keep_count);
struct job *job_new(struct service *service, const char *what,
		    struct connection *connection);
void jobs_sweep(struct service *service);
/* Both ends. fd may be -1. */
_must_check_ int job_send(int socket, const struct job_message *message, int fd);
_must_check_ int job_receive(int socket, struct job_message *ret_message, int *ret_fd);
/* In a child: act with the rights of a client, and as root again. */
_must_check_ int job_become(const struct job *job, uid_t uid, gid_t gid,
			    const gid_t *groups, unsigned group_count);
void job_unbecome(const struct job *job);

/* -- mounts of images -- */

enum image_state { IMAGE_STARTING, IMAGE_READY, IMAGE_ENDING };

struct image {
	struct image *next;
	enum image_state state;
	uint8_t identity[THAW_DIGEST_SIZE];
	uid_t uid; /* that its files belong to: 0, or the user of writable views */
	bool own;  /* without root: the mount of one view, at that view's directory */
	char key[THAW_DIGEST_HEX + 12];
	char *name;		  /* of the file, for people */
	char *directory;	  /* RUNTIME/images/KEY */
	char *state_directory;	  /* RUNTIME/keepers/KEY: its keeper's */
	unsigned users;		  /* views, and jobs that will use it */
	uint64_t deadline;	  /* when to end it, once unused; 0: in use */
	pid_t keeper;		  /* 0: not known */
	struct source keeper_end; /* its pidfd */
	bool learning;		  /* its keeper may have a trace for us */
	uint64_t learn_at;	  /* when to look for it; 0: at the end */
	unsigned learn_pause;	  /* seconds from that to the next look */
	uint32_t warm_source;	  /* enum thaw_warm_source */
	unsigned restarts;
	char failure[256]; /* what is wrong with its workers, for people */
	bool plain;	   /* no view of it needs a rendered layer */
	int index_fd;	   /* for jobs that render: thaw_decode(), or -1 */
	bool checked;	   /* a job looks whether it lives */
	bool check_again;  /* that job had looked when its keeper ended */
	uint64_t check_at; /* when to look, since its keeper is not known; 0: it is */
	bool unknown;	   /* and the log has been told */
	bool lost;	   /* nobody serves it */
	bool gone;	   /* to be swept */
};

/* Not those that are one view's own. */
struct image *image_find(struct service *service,
			 const uint8_t identity[THAW_DIGEST_SIZE], uid_t uid);
struct image *image_new(struct service *service, const uint8_t identity[THAW_DIGEST_SIZE],
			uid_t uid, const char *name);
/* The mount of one view at its directory; id is the view's. */
struct image *image_new_own(struct service *service, const struct thaw_lease *lease);
/* It stands; pidfd (taken; -1: not known) is its keeper's. */
void image_ready(struct image *image, struct service *service, int pidfd);
void image_failed(struct image *image, struct service *service);
void image_unuse(struct image *image, struct service *service);
/* Nobody serves it: detach it, whoever uses it. */
void image_abandon(struct image *image, struct service *service);
void images_expire(struct service *service, uint64_t now);
void images_sweep(struct service *service);
json_t *image_to_json(struct image *image);

void image_follow_keeper(struct image *image, struct service *service, int pidfd);
/*
 * Waits. 0: *ret_pidfd is its keeper's. THAW_ORPHANED: that of a new one, since only the
 * worker was left. THAW_NOT_FOUND: nobody is left, or it was never ours.
 */
_must_check_ int image_find_keeper(const struct image *image,
				   const struct service *service, struct thaw_error *err,
				   int *ret_pidfd);
/* Its keeper has ended: ask by a job whether anybody serves it. */
void image_check(struct image *image, struct service *service);
/* Who keeps it cannot be said now. */
void image_check_later(struct image *image, struct service *service);
/* What its keeper has written down about its workers. */
void image_look(struct image *image);

/* -- learning: learning.h -- */

/* warm: the view's choice of warm sets, or NULL. */
bool learn_wanted(const struct service *service, const char *warm);
/* A file with what was learned, or -1. */
int learn_recall(struct service *service, const uint8_t index_digest[THAW_DIGEST_SIZE]);
/* Its keeper may be learning. */
void learn_begun(struct image *image, struct service *service);
/* Is there anything yet? */
void learn_look(struct image *image, struct service *service, uint64_t now);
/* In the job that has unmounted it: the keeper's file, or -1. Waits. */
int learn_last(const struct image *image);
/* fd is borrowed. */
void learn_store(struct image *image, struct service *service, int fd);

/* -- views -- */

enum view_state { VIEW_OPENING, VIEW_OPEN, VIEW_CHANGING, VIEW_CLOSING };

struct view {
	struct view *next;
	struct service *service;
	enum view_state state;
	struct thaw_lease lease;
	struct image *images[1 + THAW_LAYERS_MAX]; /* NULL: not (yet) taken */
	struct connection *connection; /* that holds a connection lease; NULL: lost */
	struct source process;	       /* pidfd of a process lease */
	int scratch_lock;
	char device[32];      /* of its mount */
	char *link;	      /* below sessions/ */
	bool plain;	      /* none of its images needed a rendered layer */
	bool gone;	      /* to be swept */
	bool attached;	      /* a clone of its mount was given away */
	struct closing *also; /* another Close that waits for its end */
};

struct view *view_at(struct service *service, const char *directory);
struct view *view_new(struct service *service, struct thaw_lease *lease); /* takes it */
void view_opened(struct view *view);
/* Take it out of every list and record; its mount is gone. */
void view_forget(struct view *view);
int view_put_record(struct view *view, struct thaw_error *err);
void view_renew(struct view *view, struct connection *connection);
_must_check_ int view_follow_process(struct view *view, int pidfd,
				     struct thaw_error *err);
void views_expire(struct service *service, uint64_t now);
void views_sweep(struct service *service);
bool view_visible(const struct view *view, const struct connection *connection);
bool view_owned(const struct view *view, const struct connection *connection);
void view_link(struct view *view);
void view_unlink(struct view *view);

/* The view that session and directory name, or an answer that says why not. */
struct view *view_named(struct connection *connection, const char *session,
			const char *directory, bool owned);

/* -- what methods do; see doc/protocol.md -- */

void method_open(struct connection *connection);
void method_swap(struct connection *connection);
void method_add_layer(struct connection *connection);
void method_close(struct connection *connection);
/* It has left: nobody is to be answered. */
void closings_forget(struct service *service, const struct connection *connection);
/* Nobody asked: a lease has ended. */
void view_end(struct view *view, const char *why);
void method_dispatch(struct connection *connection, const char *name);

/* Jobs that waited for it may go on. */
void wake_for_view(struct service *service, struct view *view);
void wake_for_image(struct service *service, struct image *image);
void open_resume(struct job *job); /* service-open.c, for the two above */

struct request;
int opener_run(struct job *job, int socket);
int changer_run(struct job *job, int socket);
/* Whether this lower directory of a view is a rendered layer. */
bool opener_is_layer(const struct service *service, const char *path);

/* service-open.c, for service-change.c. */
struct request *request_new(void);
void request_free(struct request *request);
/* The next image of a request; fd is taken. Answers what is wrong. */
int request_take_image(struct connection *connection, struct request *request,
		       const char *name, int fd);
/* Fork; request and job are given away. Answers when that fails. */
void request_start(struct connection *connection, struct request *request,
		   struct job *job, int (*run)(struct job *job, int socket));
/* Find, or let be made, the mount of the image that a job waits for. */
void job_want_image(struct job *job);
/* fd is taken. */
void job_note_index(struct job *job, const struct job_message *message, int *fd);
void job_launched(struct job *job, const struct job_message *message, int *fd);
void job_launch_failed(struct job *job);
void job_note_plain(struct job *job, uint64_t plain);
void job_unuse_images(struct job *job);
void view_answer(struct connection *connection, const struct view *view, bool repeated);

struct request {
	struct thaw_lease lease; /* what is asked for; moved into the view */
	char *directory;	 /* as the caller says it */
	int image_fds[1 + THAW_LAYERS_MAX];
	int process_fd; /* pidfd, or -1 */
	uid_t uid;	/* with whose rights the directory is looked at */
	gid_t gid;
	gid_t *groups;
	unsigned group_count;
	/* Images that others than root may change: their views have a worker of their user's. */
	bool own[1 + THAW_LAYERS_MAX];
	/* Swap and AddLayer: all images of the view as it will be; fds from first_new on. */
	unsigned first_new;
};

/* -- all of it -- */

struct metrics {
	uint64_t opens, opens_repeated, opens_failed, closes, closes_busy, expired, swaps;
	uint64_t launches, launches_failed, keepers_adopted, keepers_lost, connections;
	uint64_t connections_refused, calls, calls_failed, clients_dropped, views_lost;
	uint64_t views_restored;
	double open_seconds;
};

struct service {
	const struct thaw_serve_options *options;
	int epoll_fd, lock_fd, spare_fd;
	struct source listener, signals, timer, mounts;
	bool root; /* views are overlays over shared mounts; else plain mounts of our user */
	bool under_systemd;
	bool draining, stopping;
	bool journal; /* log lines with priorities */
	uid_t uid;
	char *runtime; /* run-time directory */
	char *images_directory, *sessions_directory, *empty_directory, *keepers_directory;
	char *scratch_directory, *memory_directory;
	char *layers_directory, *small_layers_directory;
	char *socket_path;
	bool made_socket;
	struct thaw_catalogue *catalogue;
	struct connection *connections;
	unsigned connection_count;
	struct view *views;
	unsigned view_count;
	struct image *images;
	struct job *jobs;
	unsigned job_count;
	uint64_t next_deadline; /* 0: none */
	uint64_t mounts_look;	/* when to look at the mount table */
	int64_t started;
	struct metrics metrics;
	unsigned registered; /* archives, by ordinary users */
	bool metrics_stale;
};

/* Be woken at this time (thaw_boottime()) at the latest. */
void service_wake_at(struct service *service, uint64_t deadline);
int service_restore(struct service *service, struct thaw_error *err);
/* Views whose mounts others have taken away. */
void service_look_at_mounts(struct service *service);

/* -- reports -- */

struct thaw_stat;
json_t *view_to_json(const struct view *view); /* after image_look() of its images */
json_t *stat_to_json(const struct thaw_stat *st);
void event_send(struct service *service, const char *event, const struct view *view);
char *metrics_text(struct service *service);
void metrics_write(struct service *service);
/*
 * One line on standard error, "event=NAME key=value...": pairs of strings, ended
 * by NULL. Never blocks: a line that nobody takes is lost.
 */
void service_log(struct service *service, int priority, const char *event, ...)
	__attribute__((sentinel));
/* The same about a view. */
void view_log(const struct view *view, int priority, const char *event, const char *why);
