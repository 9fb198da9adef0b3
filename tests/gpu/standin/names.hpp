// SPDX-License-Identifier: Apache-2.0
// The names under which each vendor's library exports the same functions.
#pragma once

#if defined(REEF_STANDIN_CUDA)
#define NAME(name) cu##name
#define DEVICE_COUNT cuDeviceGetCount
#define MEMORY_INFO cuMemGetInfo_v2
#define ALLOCATE cuMemAlloc_v2
#define RELEASE cuMemFree_v2
#define ALLOCATE_HOST cuMemHostAlloc
#define RELEASE_HOST cuMemFreeHost
#define HOST_ADDRESS cuMemHostGetDevicePointer_v2
#define UPLOAD cuMemcpyHtoD_v2
#define UPLOAD_ASYNC cuMemcpyHtoDAsync_v2
#define DOWNLOAD_ASYNC cuMemcpyDtoHAsync_v2
#define PRIORITIES cuCtxGetStreamPriorityRange
#define STREAM_DESTROY cuStreamDestroy_v2
#define STREAM_BEGIN_CAPTURE cuStreamBeginCapture_v2
#define UNITS_ATTRIBUTE 16
#define UNITS 4
#define EVENT_CREATE cuEventCreate
#define EVENT_DESTROY cuEventDestroy_v2
#define GRAPHS_TAKE_THE_UNITS_OF_THEIR_STREAM false
#define POINTERS_ATTRIBUTE 91
#else
#define NAME(name) hip##name
#define DEVICE_COUNT hipGetDeviceCount
#define MEMORY_INFO hipMemGetInfo
#define ALLOCATE hipMalloc
#define RELEASE hipFree
#define ALLOCATE_HOST hipHostMalloc
#define RELEASE_HOST hipHostFree
#define HOST_ADDRESS hipHostGetDevicePointer
#define UPLOAD hipMemcpyHtoD
#define UPLOAD_ASYNC hipMemcpyHtoDAsync
#define DOWNLOAD_ASYNC hipMemcpyDtoHAsync
#define PRIORITIES hipDeviceGetStreamPriorityRange
#define STREAM_DESTROY hipStreamDestroy
#define STREAM_BEGIN_CAPTURE hipStreamBeginCapture
#define UNITS_ATTRIBUTE 63
#define UNITS 12
#define EVENT_CREATE hipEventCreateWithFlags
#define EVENT_DESTROY hipEventDestroy
#define GRAPHS_TAKE_THE_UNITS_OF_THEIR_STREAM true
#define POINTERS_ATTRIBUTE (-1)
#endif
