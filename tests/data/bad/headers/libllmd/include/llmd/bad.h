#pragma once
std::string Name();
