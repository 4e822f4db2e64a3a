// JSON as this program reads and writes it.

#ifndef KANDINSKY_MINDIR_JSON_H
#define KANDINSKY_MINDIR_JSON_H

#include <nlohmann/json.hpp>

namespace kandinsky {

using Json = nlohmann::json;

}

#endif
