// What CLIP's tokenizer asks of Unicode, as the `tokenizers` library answers it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kandinsky {

bool IsLetter(int32_t code);  // \p{L}
bool IsNumber(int32_t code);  // \p{N}
bool IsSpace(int32_t code);   // \s: White_Space

// Texts must be UTF-8.
std::string Composed(std::string_view text);   // NFC
std::string LowerCase(std::string_view text);  // character by character, without regard to their neighbors

}  // namespace kandinsky
