// SPDX-License-Identifier: Apache-2.0
// A list and a pairing heap whose nodes live in the objects themselves, so that queueing never allocates.
#pragma once

namespace reef {

template <class T> struct Link {
    T* previous = nullptr;
    T* next = nullptr;
    bool linked = false;
};

// First in, first out; any object may leave.
template <class T, Link<T> T::* L> class List {
public:
    bool empty() const { return head_ == nullptr; }
    T* front() const { return head_; }
    static T* next(const T& item) { return (item.*L).next; }
    static bool contains(const T& item) { return (item.*L).linked; }

    void push_back(T& item) {
        (item.*L) = {tail_, nullptr, true};
        (tail_ ? (tail_->*L).next : head_) = &item;
        tail_ = &item;
    }

    void push_front(T& item) {
        (item.*L) = {nullptr, head_, true};
        (head_ ? (head_->*L).previous : tail_) = &item;
        head_ = &item;
    }

    void remove(T& item) {
        Link<T>& link = item.*L;
        (link.previous ? (link.previous->*L).next : head_) = link.next;
        (link.next ? (link.next->*L).previous : tail_) = link.previous;
        link = {};
    }

private:
    T* head_ = nullptr;
    T* tail_ = nullptr;
};

template <class T> struct HeapNode {
    T* child = nullptr;
    T* next = nullptr;      // sibling
    T* previous = nullptr;  // sibling, or parent of a first child
    bool linked = false;
};

// Smallest first by Less; push is constant time, removal of any object logarithmic (amortised).
template <class T, HeapNode<T> T::* N, class Less> class Heap {
public:
    bool empty() const { return root_ == nullptr; }
    T* top() const { return root_; }
    static bool contains(const T& item) { return (item.*N).linked; }

    void push(T& item) {
        (item.*N) = {};
        (item.*N).linked = true;
        root_ = root_ ? meld(root_, &item) : &item;
    }

    void remove(T& item) {
        HeapNode<T>& node = item.*N;
        T* children = meld_pairs(node.child);
        if (&item == root_) {
            root_ = children;
        } else {
            HeapNode<T>& before = node.previous->*N;
            (before.child == &item ? before.child : before.next) = node.next;
            if (node.next) {
                (node.next->*N).previous = node.previous;
            }
            if (children) {
                root_ = meld(root_, children);
            }
        }
        if (root_) {
            (root_->*N).previous = nullptr;
            (root_->*N).next = nullptr;
        }
        node = {};
    }

private:
    static T* meld(T* a, T* b) {
        if (Less{}(*b, *a)) {
            T* swap = a;
            a = b;
            b = swap;
        }
        HeapNode<T>& parent = a->*N;
        HeapNode<T>& child = b->*N;
        child.next = parent.child;
        child.previous = a;
        if (parent.child) {
            (parent.child->*N).previous = b;
        }
        parent.child = b;
        return a;
    }

    static T* meld_pairs(T* first) {
        T* pairs = nullptr;  // melded pairs, last one first, linked by `next`
        while (first) {
            T* a = first;
            T* b = (a->*N).next;
            first = b ? (b->*N).next : nullptr;
            (a->*N).next = nullptr;
            if (b) {
                (b->*N).next = nullptr;
                a = meld(a, b);
            }
            (a->*N).next = pairs;
            pairs = a;
        }
        T* root = nullptr;
        while (pairs) {
            T* rest = (pairs->*N).next;
            (pairs->*N).next = nullptr;
            root = root ? meld(root, pairs) : pairs;
            pairs = rest;
        }
        return root;
    }

    T* root_ = nullptr;
};

}  // namespace reef
