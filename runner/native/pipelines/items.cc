#include "pipelines/items.h"

#include "common/errors.h"
#include "common/options.h"
#include "pictures/recipe.h"

namespace kandinsky {

namespace {

// Reads a field of a picture; whether it is one.
bool ReadField(InputPicture *picture, const std::string &field, const Json &value) {
  if (field != "image" && field != "sha256") {
    return false;
  }
  if (!value.is_null()) {
    (field == "image" ? picture->image : picture->sha256) = AsText(value, field);
  }
  if (picture->sha256 && (picture->sha256->size() != 64 || picture->sha256->find_first_not_of("0123456789abcdef") != std::string::npos)) {
    throw UserError("sha256 is '" + picture->sha256->substr(0, 80) + "': it must be 64 hexadecimal digits");
  }
  return true;
}

}  // namespace

InputPicture InputPicture::Of(const Json &data, const std::string &name) {
  if (!data.is_object()) {
    throw UserError(name + " must be a list of pictures, each with an image or a sha256");
  }
  InputPicture picture;
  for (const auto &[field, value] : data.items()) {
    if (!ReadField(&picture, field, value)) {
      throw UserError("a picture of " + name + " has an unknown field " + field);
    }
  }
  if (!picture.image && !picture.sha256) {
    throw UserError("a picture must have an image or a sha256");
  }
  return picture;
}

Json InputPicture::ToJson() const {
  Json data = Json::object();
  if (image) {
    data["image"] = *image;
  }
  if (sha256) {
    data["sha256"] = *sha256;
  }
  return data;
}

Image InputPicture::Open(const std::string &name) const {
  if (!image) {
    throw UserError(name + " is a picture without a path (sha256 " + sha256->substr(0, 10) + "): give the picture itself");
  }
  Image found = ReadImage(TextAsPath(*image));
  if (sha256 && *sha256 != PixelsSha256(found)) {
    throw UserError(*image + " is not the picture that was used: give what to use");
  }
  return found;
}

InputPictures PicturesOf(const Json &data, const std::string &name) {
  if (!data.is_array()) {
    throw UserError(name + " must be a list of pictures, each with an image or a sha256");
  }
  InputPictures pictures;
  for (const auto &picture : data) {
    pictures.push_back(InputPicture::Of(picture, name));
  }
  return pictures;
}

Item Item::Of(const Json &data) {
  if (!data.is_object()) {
    throw UserError("items must be a list of texts and pictures with their weights");
  }
  Item item;
  bool weighted = false;
  for (const auto &[field, value] : data.items()) {
    if (field == "weight") {
      item.weight = AsNumber(value, "weight");
      weighted = true;
    } else if (field == "text") {
      if (!value.is_null()) {
        item.text = AsText(value, field);
      }
    } else if (!ReadField(&item, field, value)) {
      throw UserError("an item has an unknown field " + field);
    }
  }
  if (!weighted) {
    throw UserError("an item has no weight");
  }
  if (item.text.has_value() == (item.image.has_value() || item.sha256.has_value())) {
    throw UserError("an item must have either a text or an image");
  }
  return item;
}

Json Item::ToJson() const {
  Json data = InputPicture::ToJson();
  data["weight"] = weight;
  if (text) {
    data["text"] = *text;
  }
  return data;
}

}  // namespace kandinsky
