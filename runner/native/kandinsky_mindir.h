/* Kandinsky 2.2 on MindSpore Lite, for programs in C and C++: a bundle that `kandinsky-mindir export` wrote, requests as JSON,
 * pictures as pixels.
 *
 * Every function that can fail returns a KANDINSKY_ status and writes one line that says why to `error`, a buffer of
 * `error_size` bytes (KANDINSKY_ERROR_SIZE is enough; NULL and 0 if nobody reads it). All text is UTF-8, but paths, which are
 * what the system takes. Several bundles may be open at once, in any threads; requests on one bundle wait for each other.
 */

#ifndef KANDINSKY_MINDIR_H
#define KANDINSKY_MINDIR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KANDINSKY_API __attribute__((visibility("default")))

#define KANDINSKY_ERROR_SIZE 1024

#define KANDINSKY_OK 0
#define KANDINSKY_FAULT 1     /* a fault of this library */
#define KANDINSKY_REFUSED 2   /* bad input, a damaged bundle, too little memory: the line says what to do */
#define KANDINSKY_STOPPED 130 /* a callback or kandinsky_stop asked for it */

typedef struct kandinsky_bundle kandinsky_bundle;

/* Options of kandinsky_open. Begin with kandinsky_options_init, which sets the defaults. */
typedef struct {
  size_t size;            /* of this structure: set by kandinsky_options_init */
  const char *bridge;     /* the program that runs models; NULL: $KANDINSKY_MINDIR_BRIDGE, or kandinsky-bridge beside this library */
  int threads;            /* of the engine; 0: one for each CPU */
  const char *precision;  /* of products and convolutions: "float32" (default), "bfloat16", "float16", "auto" */
  int64_t memory;         /* bytes that this process and its models stay below; 0: what the machine has left */
  int keep_loaded;        /* whether models stay in memory between stages and requests: 1, 0, or -1 if they fit */
  const char *check;      /* when to hash files that are loaded: "once" (default), "always", "never" */
  void (*warn)(void *context, const char *line); /* told of what is slow or odd; NULL: nobody is */
  void *context;
} kandinsky_options;

KANDINSKY_API void kandinsky_options_init(kandinsky_options *options);

/* Opens the bundle in the folder `path`. No model is loaded yet, but a process loads MindSpore Lite, for those that will run them.
 * options: NULL for the defaults. */
KANDINSKY_API int kandinsky_open(const char *path, const kandinsky_options *options, kandinsky_bundle **bundle, char *error,
                                 size_t error_size);

/* A finished picture: rows of RGB pixels of 8 bits, from the top, which are there until the callback returns. number: from 0,
 * of `count`. recipe: JSON of the request that makes this picture again, alone. */
typedef struct {
  size_t number, count;
  int width, height;
  const uint8_t *rgb;
  const char *recipe;
} kandinsky_picture;

/* What is told of a request while it runs. A callback that returns another value than 0 stops the request. */
typedef struct {
  /* A step is done: of stage "prior" or "decoder", number `done` of `all`. NULL: nobody is told. */
  int (*progress)(void *context, const char *stage, size_t done, size_t all);
  int (*picture)(void *context, const kandinsky_picture *picture);
  void *context;
} kandinsky_callbacks;

/* Makes pictures. request: a JSON object with the fields of a picture's recipe, for example
 *   {"task": "text2image", "prompt": ["a tiger"], "seed": 7, "num_inference_steps": 20}
 *   {"task": "text2image", "prompt": ["a tiger"], "image": [{"image": "sketch.png"}], "strength": 0.6}
 *   {"task": "interpolate", "items": [{"text": "a cat", "weight": 0.3}, {"image": "starry_night.png", "weight": 0.7}]}
 * What it leaves open is the bundle's default. What can be refused, is refused before the first model is loaded. */
KANDINSKY_API int kandinsky_make(kandinsky_bundle *bundle, const char *request, const kandinsky_callbacks *callbacks, char *error,
                                 size_t error_size);

/* Replays the sealed examples of the bundle, and hashes all its files: KANDINSKY_REFUSED, with the first fault, unless all is
 * right. */
KANDINSKY_API int kandinsky_verify(kandinsky_bundle *bundle, char *error, size_t error_size);

/* Ends what runs on the bundle as soon as it can be: a call that is under way, or else the next one. For any thread, and for
 * signal handlers. */
KANDINSKY_API void kandinsky_stop(kandinsky_bundle *bundle);

/* Frees the memory of all models; the next request loads them again. */
KANDINSKY_API void kandinsky_unload(kandinsky_bundle *bundle);

/* Closes a bundle that nothing runs on. NULL is let pass. */
KANDINSKY_API void kandinsky_close(kandinsky_bundle *bundle);

KANDINSKY_API const char *kandinsky_version(void);

#ifdef __cplusplus
}
#endif

#endif
