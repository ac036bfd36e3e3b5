/* Runs a saved model that holds sepconv's op, with no Python in the process:
 *
 *     consumer LIBRARY MODEL INPUT OUTPUT EXTENT... < input > output
 *
 * LIBRARY is what sepconv.library_path() says ("" loads none), MODEL a SavedModel's folder, INPUT and OUTPUT the tensors
 * of a signature ("serving_default_x:0"; `saved_model_cli show` lists them), the EXTENTs the input's shape. Both
 * tensors are float32, row-major. Says on stderr how many calls of the op there were. What fails is said there too,
 * and the exit status is 1. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

enum { MOST_EXTENTS = 8 };

static void fail(const char *what, const char *why) {
  fprintf(stderr, "consumer: %s: %s\n", what, why);
  exit(1);
}

static void check(const char *what, const TF_Status *status) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* The tensor that "name:index" means. */
static TF_Output tensor_of(TF_Graph *graph, char *name) {
  char *colon = strrchr(name, ':');
  if (!colon) fail(name, "a tensor's name ends in a colon and a number");
  *colon = 0;
  TF_Output tensor = {TF_GraphOperationByName(graph, name), atoi(colon + 1)};
  if (!tensor.oper) fail(name, "the model's graph has no such operation");
  return tensor;
}

static void report_calls(const char *library) {
  void *handle = dlopen(library, RTLD_NOLOAD | RTLD_NOW);
  char *(*stats)(void) = (char *(*)(void))dlsym(handle, "sepconv_stats_json");
  void (*release)(char *) = (void (*)(char *))dlsym(handle, "sepconv_free");
  if (!stats || !release) fail(library, "this is not sepconv's library");
  char *text = stats();
  fprintf(stderr, "%s\n", text);
  release(text);
}

int main(int argc, char **argv) {
  if (argc < 5 || argc > 5 + MOST_EXTENTS) fail("usage", "consumer LIBRARY MODEL INPUT OUTPUT EXTENT...");
  const char *library = argv[1], *model = argv[2];
  TF_Status *status = TF_NewStatus();

  if (*library) {
    TF_LoadLibrary(library, status);
    check(library, status);
  }

  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, model, tags, 1, graph, NULL, status);
  check(model, status);

  TF_Output input = tensor_of(graph, argv[3]), output = tensor_of(graph, argv[4]);
  int64_t shape[MOST_EXTENTS], elements = 1;
  for (int i = 5; i < argc; ++i) elements *= shape[i - 5] = atoll(argv[i]);
  TF_Tensor *image = TF_AllocateTensor(TF_FLOAT, shape, argc - 5, elements * sizeof(float));
  if (!image || fread(TF_TensorData(image), sizeof(float), elements, stdin) != (size_t)elements)
    fail("standard input", "there must be as many numbers as the extents say");

  TF_Tensor *result = NULL;
  TF_SessionRun(session, NULL, &input, &image, 1, &output, &result, 1, NULL, 0, NULL, status);
  check("the model's run", status);
  fwrite(TF_TensorData(result), 1, TF_TensorByteSize(result), stdout);
  if (fflush(stdout)) fail("standard output", "not all could be written");
  if (*library) report_calls(library);
  if (dlsym(RTLD_DEFAULT, "Py_Initialize")) fail("the process", "it has Python in it");

  TF_DeleteTensor(result);
  TF_DeleteTensor(image);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
